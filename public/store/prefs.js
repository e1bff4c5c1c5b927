// What this browser remembers: `Store` wraps its storage, `Prefs` holds the choices of the person who uses it.
//
// Prefs: `prefs.get(name)`, `prefs.set(name, value)`, `prefs.enterSends` (whether Enter sends here); fires `change`, also when
// another tab changed something. Names:
//   theme "light" | "dark" | null     textSize "small" | null | "large" | "larger"     clock "12" | "24" | null
//   language code | null              enterSends true | false | null (null: where there is no touch screen)
//   notify true | false               about "all" | "mentions" | null                  sound, preview true | false
//   quiet [fromMinute, toMinute] | null
//
// Each has a key of its own in the storage: of two tabs that write at once neither undoes what the other chose.

const PREFIX = "chinwag.prefs/";
/** Where version 0.2.0 kept all of them. */
const ONE_KEY = "chinwag.prefs";

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

  /** What is stored is outside input: callers check its shape. */
  get(key) {
    try {
      const text = this.#fallback.get(key) ?? this.#area?.getItem(key) ?? null;
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

  /** Deletes every key that begins with `prefix`. */
  deleteAll(prefix) {
    for (const key of this.keys(prefix)) this.delete(key);
  }

  keys(prefix) {
    const keys = [...this.#fallback.keys()];
    try {
      for (let index = 0; index < this.#area.length; index += 1) keys.push(this.#area.key(index));
    } catch {
      // As above.
    }
    return [...new Set(keys)].filter((key) => key.startsWith(prefix));
  }
}

export class Prefs extends EventTarget {
  #store;

  constructor(store = new Store("localStorage")) {
    super();
    this.#store = store;
    this.#takeOver();
    globalThis.addEventListener?.("storage", ({ key }) => {
      if (key === null || key.startsWith(PREFIX)) this.dispatchEvent(new Event("change"));
    });
  }

  get(name) {
    return this.#store.get(PREFIX + name);
  }

  /** As chosen, or as is usual: with a keyboard on the screen Enter breaks the line. */
  get enterSends() {
    return this.get("enterSends") ?? !matchMedia("(pointer: coarse)").matches;
  }

  set(name, value) {
    if (value === null) this.#store.delete(PREFIX + name);
    else this.#store.set(PREFIX + name, value);
    this.dispatchEvent(new Event("change"));
  }

  #takeOver() {
    const all = this.#store.get(ONE_KEY);
    if (all && typeof all === "object") for (const [name, value] of Object.entries(all)) this.#store.set(PREFIX + name, value);
    this.#store.delete(ONE_KEY);
  }
}

/** `quiet` is `[from, to]` in minutes of the day, and may reach over midnight. */
export function isQuiet(quiet, now = new Date()) {
  if (!Array.isArray(quiet) || quiet.length !== 2) return false;
  const [from, to] = quiet;
  const minute = now.getHours() * 60 + now.getMinutes();
  return from <= to ? minute >= from && minute < to : minute >= from || minute < to;
}
