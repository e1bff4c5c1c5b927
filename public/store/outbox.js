// What is written and not yet stored. `Outbox`: messages from the moment they are sent until their `ack`; `Drafts`: texts that
// are not sent at all. Both outlive the tab and the browser. No DOM.
//
// The outbox is one list for all tabs of a person. Each tab sends what was written in it, and what nobody has sent for a while:
// what a closed tab left behind. If two send the same, the nonce makes it one message. Every entry has a key of its own in the
// browser's storage: a tab may see late what another wrote, and a list that it wrote back would undo that.
//
//   outbox.entries, outbox.in(room)     in the order written
//   add({ room, content, replyTo, image, username, after }), next(), settle(nonce), refuse(nonce, reason), retry, discard, expects
//   drafts.get(room), drafts.set(room, text), drafts.rooms      fires `change` (detail: the room)
//
// An entry: `{ nonce, room, content, reply_to, image, username, created_at, order, after, tab, state, reason }`; `state` is
// `pending` or `failed`, `order` rises from one entry of a tab to the next whatever its clock does, `after` is the last id known
// when it was written, so that its stored copy can only have a greater one. `reply_to` and `image` are whole objects, as a
// MESSAGE has them, so that the entry can be shown.

import { isTime } from "./timeline.js";

const OUTBOX_LENGTH = 500;
/** More than the longest message takes: 4,000 characters, each of them two units. */
const CONTENT_UNITS = 8_000;
/** The server knows a nonce again for a day; sent later than that, a message could be stored twice. */
const NONCE_LIFE_MS = 24 * 60 * 60 * 1000;
/** After so long the tab in which it was written counts as gone. */
const ADOPT_MS = 15_000;

export class Outbox extends EventTarget {
  #entries = [];
  #store;
  #prefix;
  #tab;

  /** `tab` names this tab; entries of it are sent at once, others when they have waited. */
  constructor(store, prefix, tab = "") {
    super();
    this.#store = store;
    this.#prefix = prefix;
    this.#tab = tab;
    this.#read();
    globalThis.addEventListener?.("storage", this.#heard);
  }

  close() {
    globalThis.removeEventListener?.("storage", this.#heard);
  }

  get entries() {
    return this.#entries;
  }

  in(room) {
    return this.#entries.filter((entry) => entry.room === room);
  }

  get full() {
    return this.#entries.length >= OUTBOX_LENGTH;
  }

  add({ room = 1, content, replyTo = null, image = null, username, after }) {
    const now = Date.now();
    const order = Math.max(now, (this.#entries.at(-1)?.order ?? 0) + 1);
    const entry = {
      nonce: nonce(), room, content, reply_to: replyTo, image, username, created_at: now, order, after, tab: this.#tab, state: "pending", reason: null,
    };
    this.#write(entry);
    return entry;
  }

  /** What is to be sent next. */
  next(now = Date.now()) {
    this.#expire(now);
    return this.#entries.find(({ state, tab, created_at }) => state === "pending" && (tab === this.#tab || now - created_at > ADOPT_MS));
  }

  /** When something of another tab may be sent here, in ms; null if there is nothing. */
  waitFor(now = Date.now()) {
    const waits = this.#entries.filter(({ state, tab }) => state === "pending" && tab !== this.#tab).map(({ created_at }) => created_at + ADOPT_MS - now + 1);
    return waits.length > 0 ? Math.max(0, Math.min(...waits)) : null;
  }

  /** Takes out the entry of an `ack`. */
  settle(nonce) {
    this.#store.delete(this.#prefix + nonce);
    this.#changed();
  }

  refuse(nonce, reason) {
    this.#set(nonce, { state: "failed", reason });
  }

  /** The same nonce again: if the first try was stored after all, the second settles it. */
  retry(nonce) {
    const entry = this.#entries.find((entry) => entry.nonce === nonce);
    // The person was asked, so it counts as written now.
    const fresh = entry?.reason?.code === "stale" ? { created_at: Date.now() } : {};
    this.#set(nonce, { state: "pending", reason: null, tab: this.#tab, ...fresh });
  }

  discard(nonce) {
    this.settle(nonce);
  }

  /** Whether `message` may be the stored copy of an entry whose `ack` is still on its way. */
  expects({ id, username, content, room = 1 }) {
    return this.#entries.some(
      (entry) => entry.state === "pending" && entry.room === room && entry.username === username && entry.content === content && id > entry.after,
    );
  }

  clear() {
    this.#entries = [];
    this.#store.deleteAll(this.#prefix);
  }

  #heard = ({ key, newValue }) => {
    if (key !== null && !key.startsWith(this.#prefix)) return;
    // Settled or discarded in another tab, for good, although this one may have written it since: its own try was refused.
    if (key !== null && newValue === null) this.#store.delete(key);
    this.#changed();
  };

  #set(nonce, changes) {
    this.#read();
    const entry = this.#entries.find((entry) => entry.nonce === nonce);
    if (entry) this.#write({ ...entry, ...changes });
  }

  #write(entry) {
    this.#store.set(this.#prefix + entry.nonce, entry);
    this.#changed();
  }

  #changed() {
    this.#read();
    this.dispatchEvent(new Event("change"));
  }

  #read() {
    this.#entries = this.#store
      .keys(this.#prefix)
      .map((key) => ({ ...this.#store.get(key), nonce: key.slice(this.#prefix.length) }))
      .filter(isEntry)
      .sort((a, b) => a.order - b.order || (a.nonce < b.nonce ? -1 : 1))
      .slice(0, OUTBOX_LENGTH);
    this.#expire(Date.now());
  }

  /** A tab may have slept for days. */
  #expire(now) {
    for (const entry of this.#entries) {
      if (entry.state === "pending" && now - entry.created_at >= NONCE_LIFE_MS) Object.assign(entry, { state: "failed", reason: { code: "stale" } });
    }
  }
}

/** What is stored is outside input: one bad entry costs itself only. */
function isEntry(entry) {
  if (typeof entry.content !== "string" || entry.content.length > CONTENT_UNITS || typeof entry.username !== "string") return false;
  if (!isTime(entry.created_at) || !["pending", "failed"].includes(entry.state)) return false;
  entry.room = Number.isSafeInteger(entry.room) ? entry.room : 1;
  entry.after = Number.isSafeInteger(entry.after) ? entry.after : 0;
  entry.order = Number.isSafeInteger(entry.order) ? entry.order : entry.created_at;
  return true;
}

/** Texts by room: this tab's own, and for a new tab the one written last. */
export class Drafts extends EventTarget {
  #tab;
  #kept;
  #prefix;

  /** `tab` and `kept` are stores, the first of this tab only. */
  constructor(tab, kept, prefix) {
    super();
    this.#tab = tab;
    this.#kept = kept;
    this.#prefix = prefix;
  }

  get(room) {
    const text = this.#tab.get(this.#prefix + room) ?? this.#kept.get(this.#prefix + room);
    return typeof text === "string" ? text : "";
  }

  set(room, text) {
    for (const store of [this.#tab, this.#kept]) {
      if (text) store.set(this.#prefix + room, text);
      else store.delete(this.#prefix + room);
    }
    this.dispatchEvent(new CustomEvent("change", { detail: room }));
  }

  clear() {
    this.#tab.deleteAll(this.#prefix);
    this.#kept.deleteAll(this.#prefix);
  }
}

/** `crypto.randomUUID` is missing on plain HTTP, which is how a home network serves this page. */
const hex = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export const nonce = () => hex(16);

/** The name of this tab, as long as it lives. */
export function tabName(tab) {
  let name = tab.get("chinwag.tab");
  if (typeof name !== "string") {
    name = hex(8);
    tab.set("chinwag.tab", name);
  }
  return name;
}
