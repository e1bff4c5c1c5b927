// Who is here, who is typing, and how a name looks. Names are anything the server allows (`constructor` is one), so they
// are kept in sets and maps and never used as keys of plain objects.

/** A `typing` is good for this long; the server passes on at most one a second. */
const TYPING_LASTS_MS = 6_000;

const byName = new Intl.Collator(undefined, { sensitivity: "base", numeric: true }).compare;

/** Who is online. No DOM. Fires `change`. */
export class People extends EventTarget {
  online = 0;
  #self;
  #names = new Set();
  /** By name, the timer after which they count as silent. */
  #typing = new Map();

  constructor(self) {
    super();
    this.#self = self;
  }

  /** Up to 200 of those online, sorted. */
  get names() {
    return [...this.#names].sort(byName);
  }

  get typing() {
    return [...this.#typing.keys()];
  }

  take(frame) {
    switch (frame.type) {
      case "auth_success":
      case "presence":
        if (frame.users) this.#names = new Set(frame.users);
        this.online = frame.online;
        break;
      case "user_join":
        // `auth_success` has counted us, and may have counted others whose joining is told after it.
        if (this.#names.has(frame.username) || frame.username === this.#self) return;
        this.#names.add(frame.username);
        this.online += 1;
        break;
      case "user_leave":
        this.#names.delete(frame.username);
        this.online = Math.max(0, this.online - 1);
        this.#silence(frame.username);
        break;
      case "typing":
        if (frame.username === this.#self) return;
        this.#silence(frame.username);
        this.#typing.set(
          frame.username,
          setTimeout(() => this.silent(frame.username), TYPING_LASTS_MS),
        );
        break;
    }
    this.#changed();
  }

  /** Their message has come, or nothing more. */
  silent(username) {
    if (this.#silence(username)) this.#changed();
  }

  /** Nothing is known while there is no connection. */
  clearTyping() {
    for (const username of this.typing) this.#silence(username);
    this.#changed();
  }

  #silence(username) {
    clearTimeout(this.#typing.get(username));
    return this.#typing.delete(username);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export function typingInWords([first, second, ...more]) {
  if (!first) return "";
  if (!second) return `${first} is typing…`;
  return more.length === 0 ? `${first} and ${second} are typing…` : "Several people are typing…";
}

/** Gives `element` the colour and the initial of a name; the style sheet makes an avatar of them. */
export function paint(element, name) {
  element.style.setProperty("--hue", hueOf(name));
  element.dataset.initial = initialOf(name);
}

/** The same for the same name everywhere; FNV-1a, since similar names should differ in colour. */
export function hueOf(name) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < name.length; index += 1) {
    hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193);
  }
  return (hash >>> 0) % 360;
}

const initialOf = (name) => (/[\p{L}\p{N}]/u.exec(name)?.[0] ?? "?").toUpperCase();

/** The panel with the list. Where the page is narrow a button opens it; where it is wide it is always there. */
export class PeopleView {
  #people;
  #self;
  #elements;
  #frame = 0;
  #abort = new AbortController();

  constructor(people, self, elements) {
    this.#people = people;
    this.#self = self;
    this.#elements = elements;
    const { panel, button } = elements;
    const { signal } = this.#abort;
    // Hundreds may join at once: one rendering a frame is enough.
    people.addEventListener("change", () => (this.#frame ||= requestAnimationFrame(() => this.#render())));
    button.addEventListener("click", () => this.#open(!this.#isOpen), { signal });
    document.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape" || !this.#isOpen) return;
        this.#open(false);
        button.focus();
      },
      { signal },
    );
    // A press beside it means: away with it.
    document.addEventListener(
      "pointerdown",
      ({ target }) => {
        if (this.#isOpen && !panel.contains(target) && !button.contains(target)) this.#open(false);
      },
      { signal },
    );
    this.#open(false);
    this.#render();
  }

  close() {
    this.#abort.abort();
    cancelAnimationFrame(this.#frame);
  }

  get #isOpen() {
    return this.#elements.button.ariaExpanded === "true";
  }

  #open(open) {
    this.#elements.button.ariaExpanded = String(open);
    this.#elements.panel.dataset.open = String(open);
  }

  #render() {
    this.#frame = 0;
    const { list, count, more, typing } = this.#elements;
    const { names, online } = this.#people;
    count.textContent = `${online.toLocaleString()} online`;
    list.replaceChildren(...names.map((name) => this.#item(name)));
    const unnamed = Math.max(0, online - names.length);
    more.hidden = unnamed === 0;
    more.textContent = `and ${unnamed.toLocaleString()} more`;
    typing.textContent = typingInWords(this.#people.typing);
  }

  #item(name) {
    const item = document.createElement("li");
    item.textContent = name;
    paint(item, name);
    if (name === this.#self) item.dataset.self = "";
    return item;
  }
}
