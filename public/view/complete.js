// Completes names after `@` in the composer: those of the room first, then other people on the server. Loaded when somebody first
// writes an `@`.
//
//   new Completion(app, box, panel)       `box` is the textarea, `panel` where the names are shown

import { stamp, t } from "../i18n/index.js";
import { avatar, el } from "./dom.js";

const PREFIX = /(?:^|[\s([{"'])@([\p{L}\p{N}._-]{0,32})$/u;
const SHOWN = 6;
const ASK_AFTER_MS = 120;

export class Completion {
  #app;
  #box;
  #panel;
  #found = [];
  #chosen = 0;
  #prefix = null;
  #isDeclined = false;
  #timer = null;

  constructor(app, box, panel) {
    this.#app = app;
    this.#box = box;
    this.#panel = panel;
    panel.id = "suggestions";
    box.setAttribute("aria-autocomplete", "list");
    box.setAttribute("aria-controls", panel.id);
    box.addEventListener("input", () => this.#look());
    box.addEventListener("click", () => this.#look());
    box.addEventListener("blur", () => this.#close());
    // Before the composer's own, which is to hear of an Enter only if nothing is chosen by it.
    box.addEventListener("keydown", (event) => this.#key(event), { capture: true });
    // A press must not take the focus out of the text.
    panel.addEventListener("pointerdown", (event) => event.preventDefault());
    panel.addEventListener("click", ({ target }) => {
      const option = target.closest("[role=option]");
      if (option) this.#take(this.#found[Number(option.dataset.at)]);
    });
    this.#look();
  }

  #look() {
    const { selectionStart, selectionEnd, value } = this.#box;
    // An `@` further back belongs to no name that is being written.
    const before = value.slice(Math.max(0, selectionEnd - 40), selectionEnd);
    const prefix = selectionStart === selectionEnd ? PREFIX.exec(before)?.[1] : undefined;
    clearTimeout(this.#timer);
    if (prefix === undefined) return this.#close();
    if (prefix === this.#prefix) return;
    this.#prefix = prefix;
    this.#isDeclined = false;
    this.#show(this.#known(prefix));
    this.#timer = setTimeout(() => this.#ask(prefix), ASK_AFTER_MS);
  }

  /** Names that can be had without asking. */
  #known(prefix) {
    const { room, people, username } = this.#app;
    const names = room.members ?? people.names;
    return names.filter((name) => name !== username && starts(name, prefix)).map((name) => ({ username: name, online: people.isHere(name) }));
  }

  async #ask(prefix) {
    if (!this.#app.hasRooms) return;
    let users;
    try {
      ({ users } = await this.#app.api.users(prefix));
    } catch {
      // What is known already is shown.
      return;
    }
    if (prefix !== this.#prefix || this.#isDeclined || !Array.isArray(users)) return;
    const { room, username } = this.#app;
    // In a room that not everybody reads nobody else can be mentioned.
    const readers = room.members === null ? users : users.filter((user) => room.members.includes(user.username));
    this.#show(readers.filter((user) => user.username !== username && starts(user.username, prefix)));
  }

  #show(users) {
    const { room, isModerator } = this.#app;
    const all = room.kind === "private" || (room.kind === "open" && isModerator);
    const sorted = [...users].sort((a, b) => Number(b.online) - Number(a.online)).slice(0, SHOWN);
    this.#found = all && starts("all", this.#prefix) ? [...sorted, { username: "all", everybody: true }] : sorted;
    if (this.#found.length === 0) return this.#hide();
    this.#chosen = 0;
    const list = el("ul", { role: "listbox", "aria-label": t("complete.title") }, ...this.#found.map((user, at) => this.#option(user, at)));
    this.#panel.replaceChildren(list);
    this.#panel.hidden = false;
    this.#mark();
  }

  #option({ username, online, last_seen: seen, everybody }, at) {
    const hint = everybody ? t("complete.all") : online ? t("people.here") : seen ? stamp(seen) : "";
    const face = everybody ? el("span", { class: "tile", "aria-hidden": "true", text: "@" }) : avatar(username, online ? "here" : "gone");
    return el("li", { role: "option", id: `suggestion-${at}`, data: { at } }, face, el("bdi", { text: username }), el("small", { text: hint }));
  }

  #mark() {
    for (const option of this.#panel.querySelectorAll("[role=option]")) {
      option.setAttribute("aria-selected", String(Number(option.dataset.at) === this.#chosen));
    }
    this.#box.setAttribute("aria-activedescendant", `suggestion-${this.#chosen}`);
  }

  #key(event) {
    if (this.#panel.hidden || event.isComposing || event.keyCode === 229 || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      this.#chosen = (this.#chosen + step + this.#found.length) % this.#found.length;
      this.#mark();
    } else if (event.key === "Enter" || event.key === "Tab") {
      this.#take(this.#found[this.#chosen]);
    } else if (event.key === "Escape") {
      // The same prefix is not offered again until it is another.
      this.#isDeclined = true;
      this.#hide();
    } else {
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  #take({ username }) {
    const end = this.#box.selectionEnd;
    this.#box.setSelectionRange(end - this.#prefix.length, end);
    this.#close();
    this.#app.composer.insert(`${username} `);
  }

  #close() {
    clearTimeout(this.#timer);
    this.#prefix = null;
    this.#hide();
  }

  #hide() {
    this.#panel.hidden = true;
    this.#panel.replaceChildren();
    this.#box.removeAttribute("aria-activedescendant");
  }
}

const starts = (name, prefix) => name.toLowerCase().startsWith(prefix.toLowerCase());
