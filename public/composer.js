// Writing: the outbox of what is not yet acknowledged (no DOM), and the composer with its draft.

/** Characters are counted as the server counts them: Unicode scalar values, after trimming. */
export const MESSAGE_LENGTH = 4_000;
const OUTBOX_LENGTH = 500;
/** The server knows a nonce again for a day; sent later than that, a message could be stored twice. */
const NONCE_LIFE_MS = 24 * 60 * 60 * 1000;

/**
 * Messages from the moment they are written until their `ack`, in order. Kept over a reload, since the nonce is what makes
 * sending again safe. Fires `change`.
 *
 * An entry: `{ nonce, content, username, created_at, after, state, reason }`; `state` is `pending` or `failed`, `after` the
 * last id known when it was written, so that its stored copy can only have a greater one.
 */
export class Outbox extends EventTarget {
  #entries;
  #store;
  #key;

  constructor(store, key) {
    super();
    this.#store = store;
    this.#key = key;
    const stored = store.get(key);
    this.#entries = Array.isArray(stored) ? stored : [];
    for (const entry of this.#entries) {
      if (entry.state !== "pending" || Date.now() - entry.created_at < NONCE_LIFE_MS) continue;
      entry.state = "failed";
      entry.reason = { code: "stale" };
    }
  }

  get entries() {
    return this.#entries;
  }

  get full() {
    return this.#entries.length >= OUTBOX_LENGTH;
  }

  add(content, username, after) {
    const entry = { nonce: nonce(), content, username, created_at: Date.now(), after, state: "pending", reason: null };
    this.#entries.push(entry);
    this.#changed();
    return entry;
  }

  /** What is to be sent next. */
  next() {
    return this.#entries.find(({ state }) => state === "pending");
  }

  /** Takes out the entry of an `ack`. */
  settle(nonce) {
    const index = this.#entries.findIndex((entry) => entry.nonce === nonce);
    if (index === -1) return null;
    const [entry] = this.#entries.splice(index, 1);
    this.#changed();
    return entry;
  }

  refuse(nonce, reason) {
    this.#set(nonce, "failed", reason);
  }

  /** The same nonce again: if the first try was stored after all, the second settles it. */
  retry(nonce) {
    this.#set(nonce, "pending", null);
  }

  discard(nonce) {
    this.settle(nonce);
  }

  /** Whether `message` may be the stored copy of an entry whose `ack` is still on its way. */
  expects({ id, username, content }) {
    return this.#entries.some(
      (entry) => entry.state === "pending" && entry.username === username && entry.content === content && id > entry.after,
    );
  }

  clear() {
    this.#entries = [];
    this.#store.delete(this.#key);
  }

  #set(nonce, state, reason) {
    const entry = this.#entries.find((entry) => entry.nonce === nonce);
    if (!entry) return;
    Object.assign(entry, { state, reason });
    this.#changed();
  }

  #changed() {
    if (this.#entries.length > 0) this.#store.set(this.#key, this.#entries);
    else this.#store.delete(this.#key);
    this.dispatchEvent(new Event("change"));
  }
}

/** `crypto.randomUUID` is missing on plain HTTP, which is how a home network serves this page. */
function nonce() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Why a message failed, for a person. */
export function refusal({ code, message }) {
  switch (code) {
    case "unavailable":
      return "The server could not store it.";
    case "stale":
      return "Written over a day ago, and perhaps sent already.";
    case "invalid_message":
      return message || "The server does not accept this text.";
    default:
      return message || "The server refused it.";
  }
}

/** What a message will be once sent: no white space around it, and whole characters only. */
export function tidy(text) {
  return text.toWellFormed().trim();
}

export const lengthOf = (text) => [...text].length;

/** Control characters other than newline and tab, which the server refuses; a paste can bring them unseen. */
const CONTROLS = /[\0-\x08\x0b-\x1f\x7f-\x9f]/;

/** The form below the log. */
export class Composer {
  #form;
  #box;
  #send;
  #onChange;
  #drafts;
  #draftKey;
  #abort = new AbortController();

  /** `send(text)` takes a message; `onChange(writing)` is told of each change, and whether it leaves text. */
  constructor(form, { send, onChange, drafts, draftKey }) {
    this.#form = form;
    this.#box = form.elements.namedItem("message");
    this.#send = send;
    this.#onChange = onChange;
    this.#drafts = drafts;
    this.#draftKey = draftKey;
    const { signal } = this.#abort;
    this.#box.value = drafts.get(draftKey) ?? "";
    this.#box.addEventListener("input", () => this.#changed(), { signal });
    this.#box.addEventListener("keydown", (event) => this.#key(event), { signal });
    // A press on the button would take the focus, and with it a phone's keyboard, away for a moment.
    form.querySelector("button").addEventListener("pointerdown", (event) => event.preventDefault(), { signal });
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        this.#submit();
      },
      { signal },
    );
    this.#measure();
  }

  focus() {
    this.#box.focus();
  }

  /** The form stays in the page for the next login; its listeners do not. */
  close() {
    this.#abort.abort();
    this.#box.value = "";
    this.#measure();
  }

  #key(event) {
    // Enter that ends an IME composition picks a word. Safari sends it after the composition, told apart by 229 only.
    const composing = event.isComposing || event.keyCode === 229;
    if (event.key !== "Enter" || (event.shiftKey && !composing)) return;
    event.preventDefault();
    if (!composing && !event.repeat) this.#submit();
  }

  #changed() {
    const { value } = this.#box;
    if (value) this.#drafts.set(this.#draftKey, value);
    else this.#drafts.delete(this.#draftKey);
    this.#measure();
    this.#onChange(value.trim() !== "");
  }

  #submit() {
    const text = tidy(this.#box.value);
    if (text !== "" && this.#measure() && this.#send(text)) {
      this.#box.value = "";
      this.#changed();
    }
    this.#box.focus();
  }

  /** Says what keeps the text from being sent, and how much room is left once that is scarce. */
  #measure() {
    const text = tidy(this.#box.value);
    const left = MESSAGE_LENGTH - lengthOf(text);
    const counter = this.#form.querySelector(".counter");
    counter.textContent = left <= 200 ? left.toLocaleString() : "";
    let problem = "";
    if (left < 0) problem = `A message has at most ${MESSAGE_LENGTH.toLocaleString("en")} characters; this is too long.`;
    else if (CONTROLS.test(text)) problem = "There are control characters in this text that cannot be sent.";
    const alert = this.#form.querySelector("[role=alert]");
    // Said once, not at every key.
    if (alert.textContent !== problem) alert.textContent = problem;
    alert.hidden = problem === "";
    if (problem) this.#box.ariaInvalid = "true";
    else this.#box.removeAttribute("aria-invalid");
    return problem === "";
  }
}
