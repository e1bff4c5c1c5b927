// The emoji that were used last in this browser, in any of its tabs. Each has a key of its own in the storage, with when it was
// used: of two tabs that write at once neither loses what the other wrote. No DOM.
//
//   new Recent(known, store)     `known` is a Set: what is stored and not in it is no emoji
//   all                          the last used first
//   use(emoji)

import { Store } from "./prefs.js";

const PREFIX = "chinwag.emoji/";
/** Where version 0.2.0 kept all of them. */
const ONE_KEY = "chinwag.emoji";
const MOST = 16;

export class Recent {
  #known;
  #store;

  constructor(known, store = new Store("localStorage")) {
    this.#known = known;
    this.#store = store;
    this.#takeOver();
  }

  get all() {
    return this.#used().slice(0, MOST);
  }

  use(emoji) {
    const [last] = this.#used();
    // Later than any other, whatever the clock says.
    this.#store.set(PREFIX + emoji, Math.max(Date.now(), this.#when(last) + 1));
    for (const old of this.#used().slice(MOST)) this.#store.delete(PREFIX + old);
  }

  #used() {
    const emojis = this.#store.keys(PREFIX).map((key) => key.slice(PREFIX.length));
    return emojis.filter((emoji) => this.#known.has(emoji)).sort((a, b) => this.#when(b) - this.#when(a));
  }

  #when(emoji) {
    const when = this.#store.get(PREFIX + emoji);
    return Number.isSafeInteger(when) ? when : 0;
  }

  #takeOver() {
    const all = this.#store.get(ONE_KEY);
    if (Array.isArray(all)) for (const emoji of all.slice(0, MOST).reverse()) if (this.#known.has(emoji)) this.use(emoji);
    this.#store.delete(ONE_KEY);
  }
}
