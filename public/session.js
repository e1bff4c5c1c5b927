// The login: who this browser is, alike in every tab. The token lives in localStorage and nowhere else: not in a URL,
// not in a cookie, not in the service worker.

import { ApiError, inWords, login, logout, register } from "./api.js";

const SESSION_KEY = "chinwag.session";
const INVITE_KEY = "chinwag.invite";

/** A page may be denied storage (private windows, policies); then it forgets at reload, but works until then. */
export class Store {
  #area;
  #fallback = new Map();

  constructor(area) {
    try {
      this.#area = globalThis[area];
    } catch {
      this.#area = null;
    }
  }

  get(key) {
    try {
      const text = this.#area?.getItem(key) ?? this.#fallback.get(key) ?? null;
      return text === null ? null : JSON.parse(text);
    } catch {
      return null;
    }
  }

  set(key, value) {
    const text = JSON.stringify(value);
    try {
      this.#area.setItem(key, text);
      this.#fallback.delete(key);
    } catch {
      this.#fallback.set(key, text);
    }
  }

  delete(key) {
    this.#fallback.delete(key);
    try {
      this.#area.removeItem(key);
    } catch {
      // There is nothing to remove from storage that cannot be had.
    }
  }
}

/** Fires `change` with `{ words, loggedOut }` when a login begins or ends, in this tab or another. */
export class Session extends EventTarget {
  #store = new Store("localStorage");
  #current;

  constructor() {
    super();
    this.#current = this.#read();
    addEventListener("storage", ({ key }) => {
      // `key` is null when everything was cleared.
      if (key === SESSION_KEY || key === null) this.#follow();
    });
  }

  get token() {
    return this.#current?.token ?? null;
  }

  get username() {
    return this.#current?.username ?? null;
  }

  async logIn(username, password) {
    const answer = await login(username, password);
    if (typeof answer?.token !== "string") throw new ApiError("unreachable", "not the server's answer");
    this.#current = { token: answer.token, username: answer.username };
    this.#store.set(SESSION_KEY, this.#current);
    this.#announce();
  }

  /** Forgets first and tells the server after: no answer may leave a token behind. */
  logOut() {
    const { token } = this;
    this.#forget({ words: "You are logged out.", loggedOut: true });
    if (token) logout(token).catch(() => {});
  }

  /** The server no longer knows `token`; if another has taken its place meanwhile, that one stays. */
  expire(token) {
    if (token === this.token) this.#forget({ words: inWords({ code: "unauthorized" }) });
  }

  #forget(why) {
    this.#current = null;
    this.#store.delete(SESSION_KEY);
    this.#announce(why);
  }

  #follow() {
    const before = this.token;
    this.#current = this.#read();
    if (this.token !== before) this.#announce(this.token ? {} : { words: "Your session ended in another tab." });
  }

  #read() {
    const stored = this.#store.get(SESSION_KEY);
    return typeof stored?.token === "string" && typeof stored.username === "string" ? stored : null;
  }

  #announce({ words = "", loggedOut = false } = {}) {
    this.dispatchEvent(new CustomEvent("change", { detail: { words, loggedOut } }));
  }
}

/** Which field a refusal is about; the rest is about neither, and shown between the fields and the buttons. */
const FIELDS = new Map([
  ["invalid_credentials", "password"],
  ["username_taken", "username"],
  ["invalid_username", "username"],
  ["invalid_password", "password"],
]);

const USERNAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/;
const PASSWORD_LENGTH = { least: 8, most: 256 };

/** The form in front of the chat. */
export class LoginForm {
  #form;
  #session;
  #notice;
  #invited;
  #store = new Store("sessionStorage");
  #busy = false;

  constructor(form, session, { notice, invited }) {
    this.#form = form;
    this.#session = session;
    this.#notice = notice;
    this.#invited = invited;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(event.submitter?.value === "register");
    });
    this.#takeInvite();
    addEventListener("hashchange", () => this.#takeInvite());
  }

  show(words) {
    this.#clear();
    this.say(words);
    this.#field("password").value = "";
    this.#field(this.#field("username").value ? "password" : "username").focus();
  }

  say(words) {
    this.#notice.textContent = words;
    this.#notice.hidden = !words;
  }

  async #submit(registering) {
    if (this.#busy) return;
    const username = this.#field("username").value.trim();
    const password = this.#field("password").value;
    const mistake = check(username, password, registering);
    this.#clear();
    if (mistake) return this.#explain(mistake.code, mistake.words);

    this.#setBusy(true);
    let registered = false;
    try {
      if (registering) {
        await register(username, password, this.#store.get(INVITE_KEY));
        registered = true;
        this.#store.delete(INVITE_KEY);
      }
      await this.#session.logIn(username, password);
      this.#field("password").value = "";
      this.#showInvite();
    } catch (error) {
      const code = error instanceof ApiError ? error.code : "unreachable";
      const words = inWords(error instanceof ApiError ? error : { code });
      this.#explain(code, registered ? `Your account is made, but you are not logged in yet. ${words}` : words);
    } finally {
      this.#setBusy(false);
    }
  }

  #field(name) {
    return this.#form.elements.namedItem(name);
  }

  /** The buttons are not disabled while busy: keyboard and screen reader would lose their place. */
  #setBusy(busy) {
    this.#busy = busy;
    this.#form.ariaBusy = String(busy);
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
      if (invalid.includes(name)) this.#field(name).ariaInvalid = "true";
      if (!field || invalid.includes(name)) this.#field(name).setAttribute("aria-describedby", `${name}-hint ${alert.id}`);
    }
    if (field) this.#field(field).focus();
  }

  /** An invitation arrives in the address; it is kept for this tab and taken out of the address bar and history. */
  #takeInvite() {
    const url = new URL(location.href);
    const fragment = new URLSearchParams(url.hash.slice(1));
    const code = fragment.get("invite") ?? url.searchParams.get("invite");
    if (code) {
      this.#store.set(INVITE_KEY, code);
      url.searchParams.delete("invite");
      url.hash = "";
      history.replaceState(null, "", url.pathname + url.search);
    }
    this.#showInvite();
  }

  #showInvite() {
    this.#invited.hidden = this.#store.get(INVITE_KEY) === null;
  }
}

/** What can be said without asking the server. A login is not checked further: rules may have been others once. */
function check(username, password, registering) {
  if (username === "") return { code: "invalid_username", words: "Enter your name." };
  if (registering && !USERNAME.test(username)) return { code: "invalid_username", words: inWords({ code: "invalid_username" }) };
  if (password === "") return { code: "invalid_password", words: "Enter your password." };
  const length = [...password].length;
  if (registering && (length < PASSWORD_LENGTH.least || length > PASSWORD_LENGTH.most)) {
    return { code: "invalid_password", words: inWords({ code: "invalid_password" }) };
  }
  return null;
}
