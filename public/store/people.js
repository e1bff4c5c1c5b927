// Who is here, and who is typing where. No DOM. Names are anything the server allows (`constructor` is one), so they are kept in
// sets and maps and never used as keys of plain objects.
//
//   people.online            how many are here; `people.names`: up to 200 of them, sorted; `people.isHere(name)`
//   people.typing(room)      names, in the order in which they began
//   take(frame)              `auth_success`, `presence`, `user_join`, `user_leave`, `typing`
//   silent(name, room), clearTyping()
//
// Fires `change` when the list is different, and `typing` (detail: the room) when only somebody's typing is.

import { compare } from "../i18n/index.js";

/** A `typing` is good for this long; the server passes on at most one a second. */
const TYPING_LASTS_MS = 6_000;
/** The protocol names no more than these, and so does the list: past this many only the number is right. */
const NAMES_MOST = 200;

export class People extends EventTarget {
  online = 0;
  #self;
  #names = new Set();
  /** By room, by name, the timer after which they count as silent. */
  #typing = new Map();

  constructor(self) {
    super();
    this.#self = self;
  }

  /** Up to 200 of those online, sorted, oneself always among them. */
  get names() {
    return [...this.#names].sort(compare);
  }

  isHere(name) {
    return this.#names.has(name);
  }

  typing(room = 1) {
    return [...(this.#typing.get(room)?.keys() ?? [])];
  }

  take(frame) {
    switch (frame.type) {
      case "auth_success":
      case "presence":
        // Without names so many are here that joining and leaving is not told any more: old ones would stay that have gone.
        this.#names = new Set(Array.isArray(frame.users) ? frame.users.slice(0, NAMES_MOST) : []);
        this.online = Number(frame.online) || 0;
        if (this.online > 0) this.#names.add(this.#self);
        break;
      case "user_join":
        // `auth_success` has counted us, and may have counted others whose joining is told after it.
        if (this.#names.has(frame.username) || frame.username === this.#self) return;
        if (this.#names.size < NAMES_MOST) this.#names.add(frame.username);
        this.online += 1;
        break;
      case "user_leave":
        this.#names.delete(frame.username);
        this.online = Math.max(0, this.online - 1);
        for (const room of this.#typing.keys()) this.silent(frame.username, room);
        break;
      case "typing":
        return this.#startTyping(frame.username, frame.room ?? 1);
    }
    this.dispatchEvent(new Event("change"));
  }

  #startTyping(name, room) {
    if (name === this.#self) return;
    const names = this.#typing.get(room) ?? new Map();
    this.#typing.set(room, names);
    const isNew = !names.has(name);
    clearTimeout(names.get(name));
    names.delete(name);
    names.set(name, setTimeout(() => this.silent(name, room), TYPING_LASTS_MS));
    if (isNew) this.#told(room);
  }

  /** Their message has come, or nothing more. */
  silent(name, room = 1) {
    const names = this.#typing.get(room);
    clearTimeout(names?.get(name));
    if (!names?.delete(name)) return;
    if (names.size === 0) this.#typing.delete(room);
    this.#told(room);
  }

  /** Nothing is known while there is no connection. */
  clearTyping() {
    for (const [room, names] of [...this.#typing]) for (const name of [...names.keys()]) this.silent(name, room);
  }

  #told(room) {
    this.dispatchEvent(new CustomEvent("typing", { detail: room }));
  }
}
