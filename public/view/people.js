// The panel with the list of people online. Where the page is narrow a button opens it; where it is wide it is always there.
//
//   new PeopleView(people, self, { panel, button, list, count, more, onPick })
//     `onPick(name, element)`     somebody's name was pressed: their card is wanted

import { t } from "../i18n/index.js";
import { avatar, el } from "./dom.js";

/** However many come and go, the list is brought up to date at once and then this often. */
const EVERY_MS = 250;

export class PeopleView {
  #people;
  #self;
  #elements;
  #items = new Map();
  #timer = null;
  #isStale = false;
  #abort = new AbortController();

  constructor(people, self, elements) {
    this.#people = people;
    this.#self = self;
    this.#elements = elements;
    const { panel, button, list, onPick } = elements;
    const { signal } = this.#abort;
    people.addEventListener("change", this.#later, { signal });
    button.addEventListener("click", () => this.open(!this.isOpen), { signal });
    list.addEventListener("click", ({ target }) => {
      const picked = target.closest("button");
      if (picked) onPick(picked.dataset.name, picked);
    });
    panel.querySelector(".close").addEventListener("click", () => this.open(false, true), { signal });
    document.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape" || event.defaultPrevented || !this.isOpen || document.querySelector("dialog[open]")) return;
        this.open(false, true);
      },
      { signal },
    );
    // A press beside it means: away with it.
    document.addEventListener(
      "pointerdown",
      ({ target }) => {
        if (this.isOpen && !panel.contains(target) && !button.contains(target) && !target.closest("dialog")) this.open(false);
      },
      { signal },
    );
    this.open(false);
    this.#render();
  }

  close() {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  get isOpen() {
    return this.#elements.button.getAttribute("aria-expanded") === "true";
  }

  open(open, returnFocus = false) {
    this.#elements.button.setAttribute("aria-expanded", String(open));
    this.#elements.panel.dataset.open = String(open);
    if (returnFocus) this.#elements.button.focus();
  }

  #later = () => {
    if (this.#timer !== null) {
      this.#isStale = true;
      return;
    }
    this.#render();
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#isStale) this.#later();
    }, EVERY_MS);
  };

  #render() {
    this.#isStale = false;
    const { list, count, more } = this.#elements;
    const { names, online } = this.#people;
    count.textContent = t("people.online", { n: online });
    const items = new Map(names.map((name) => [name, this.#items.get(name) ?? this.#item(name)]));
    for (const [name, item] of this.#items) if (!items.has(name)) item.remove();
    let cursor = list.firstElementChild;
    for (const item of items.values()) {
      if (item === cursor) cursor = cursor.nextElementSibling;
      else list.insertBefore(item, cursor);
    }
    this.#items = items;
    const own = items.get(this.#self);
    if (own) own.dataset.self = t("people.you");
    const unnamed = Math.max(0, online - names.length);
    more.hidden = unnamed === 0;
    more.textContent = t("people.more", { n: unnamed });
  }

  #item(name) {
    const button = el("button", { type: "button", class: "person", data: { name } }, avatar(name, "here"), el("bdi", { text: name }));
    return el("li", {}, button);
  }
}
