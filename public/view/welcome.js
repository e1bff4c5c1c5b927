// The form in front of the chat: logging in, creating an account, an invitation, the first account of an empty server.
//
//   const form = new LoginForm(element, session); form.show(words); form.say(words); form.close()
//   form.server = about()'s answer: whose server it is, and what Enter does

import { ApiError, inWords, register } from "../api.js";
import { t } from "../i18n/index.js";
import { Store } from "../store/prefs.js";
import { passwordIn, revealPasswords } from "./dom.js";

const INVITE_KEY = "chinwag.invite";

/** Which field a refusal is about; the rest is about neither, and shown between the fields and the buttons. */
const FIELDS = new Map([
  ["invalid_credentials", "password"],
  ["username_taken", "username"],
  ["invalid_username", "username"],
  ["invalid_password", "password"],
]);

const USERNAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/;
const PASSWORD_LENGTH = { least: 8, most: 256 };

export class LoginForm {
  #view;
  #form;
  #session;
  #store = new Store("sessionStorage");
  #server = {};
  #busy = false;

  constructor(view, session) {
    this.#view = view;
    this.#form = view.querySelector("form");
    this.#session = session;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(event.submitter?.value === "register");
    });
    revealPasswords(this.#form);
    addEventListener("hashchange", this.#takeInvite);
    this.#takeInvite();
  }

  close() {
    removeEventListener("hashchange", this.#takeInvite);
  }

  set server(about) {
    this.#server = about;
    this.#view.querySelector("h1").textContent = about.name || "chinwag";
    this.#view.querySelector(".foot").textContent = t("login.forgotten");
    this.#view.querySelector(".first").hidden = about.new !== true;
    this.#arrange();
  }

  show(words) {
    this.#clear();
    this.say(words);
    this.#field("password").value = "";
    this.#field(this.#field("username").value ? "password" : "username").focus();
  }

  get name() {
    return this.#field("username").value;
  }

  set name(name) {
    this.#field("username").value = name;
  }

  say(words) {
    const notice = this.#view.querySelector("#login-notice");
    notice.textContent = words;
    notice.hidden = !words;
  }

  get #invite() {
    const invite = this.#store.get(INVITE_KEY);
    return typeof invite === "string" ? invite : null;
  }

  /** The button that Enter presses is the first one, and the one that stands out. */
  #arrange() {
    const registers = this.#invite !== null || this.#server.new === true;
    const [login, create] = ["login", "register"].map((value) => this.#form.querySelector(`[value=${value}]`));
    for (const [button, isFirst] of [[login, !registers], [create, registers]]) button.classList.toggle("primary", isFirst);
    (registers ? login : create).before(registers ? create : login);
    this.#field("password").autocomplete = registers ? "new-password" : "current-password";
    this.#view.querySelector("#invited").hidden = this.#invite === null;
  }

  async #submit(registering) {
    if (this.#busy) return;
    const username = this.#field("username").value.trim();
    const password = passwordIn(this.#field("password"));
    const mistake = check(username, password, registering);
    this.#clear();
    if (mistake) return this.#explain(mistake.code, mistake.words);

    this.#setBusy(registering);
    let registered = false;
    try {
      if (registering) {
        await register(username, password, this.#invite);
        registered = true;
        this.#store.delete(INVITE_KEY);
      }
      await this.#session.logIn(username, password);
    } catch (error) {
      const code = error instanceof ApiError ? error.code : "unreachable";
      const words = inWords(error instanceof ApiError ? error : { code });
      this.#explain(code, registered ? t("login.madeButNot", { words }) : words);
    } finally {
      this.#setBusy(null);
    }
  }

  #field(name) {
    return this.#form.elements.namedItem(name);
  }

  /** The buttons are not disabled while busy: keyboard and screen reader would lose their place. */
  #setBusy(registering) {
    this.#busy = registering !== null;
    this.#form.setAttribute("aria-busy", String(this.#busy));
    for (const [value, isBusy] of [["login", registering === false], ["register", registering === true]]) {
      this.#form.querySelector(`[value=${value}]`).classList.toggle("busy", isBusy);
    }
  }

  #clear() {
    for (const alert of this.#form.querySelectorAll("[role=alert]")) {
      alert.hidden = true;
      alert.textContent = "";
    }
    for (const name of ["username", "password"]) {
      this.#field(name).removeAttribute("aria-invalid");
      this.#field(name).setAttribute("aria-describedby", `${name}-hint`);
    }
  }

  #explain(code, words) {
    this.say("");
    const field = FIELDS.get(code);
    const alert = this.#form.querySelector(`#${field ?? "form"}-error`);
    alert.textContent = words;
    alert.hidden = false;
    // A wrong login is not the password's fault alone, and what concerns neither field still describes both.
    const invalid = code === "invalid_credentials" ? ["username", "password"] : [field];
    for (const name of ["username", "password"]) {
      if (invalid.includes(name)) this.#field(name).setAttribute("aria-invalid", "true");
      if (!field || invalid.includes(name)) this.#field(name).setAttribute("aria-describedby", `${name}-hint ${alert.id}`);
    }
    if (field) this.#field(field).focus();
  }

  /** An invitation arrives in the address; it is kept for this tab and taken out of the address bar and history. */
  #takeInvite = () => {
    const url = new URL(location.href);
    const fragment = new URLSearchParams(url.hash.slice(1));
    const code = fragment.get("invite") ?? url.searchParams.get("invite");
    if (code) {
      // Copied out of a sentence it may have taken the full stop along.
      this.#store.set(INVITE_KEY, code.trim().replace(/[.,;:!?)\]}>"'’”»]+$/, ""));
      url.searchParams.delete("invite");
      url.hash = "";
      history.replaceState(null, "", url.pathname + url.search);
    }
    this.#arrange();
  };
}

/** What can be said without asking the server. A login is not checked further: rules may have been others once. */
function check(username, password, registering) {
  if (username === "") return { code: "invalid_username", words: t("login.noName") };
  if (registering && !USERNAME.test(username)) return { code: "invalid_username", words: inWords({ code: "invalid_username" }) };
  if (password === "") return { code: "invalid_password", words: t("login.noPassword") };
  const length = [...password].length;
  if (registering && (length < PASSWORD_LENGTH.least || length > PASSWORD_LENGTH.most)) {
    return { code: "invalid_password", words: inWords({ code: "invalid_password" }) };
  }
  return null;
}
