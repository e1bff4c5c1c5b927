// The messages: a window onto the history, in the order of their ids, with what is not yet acknowledged after them.
// No DOM: `log.js` shows what is here.
//
// The window is always one gap-free run. Either it reaches the newest message (`attached`) and live messages extend it, or
// something newer is known to exist and must first be read page by page. A start, a `resync`, a window scrolled far back
// and a live message arriving while a page is being read are all that one case, so there is no second list to merge.

/** How many messages the window keeps; what lies beyond is read again when it is scrolled to. */
export const WINDOW = 300;
/** While someone reads further up, live messages may pile up below to this many before the window lets go of the end. */
const WINDOW_READING = 2 * WINDOW;
/** A page is put into the document at once: it is as long as what a small device lays out without a stutter. */
export const PAGE = 75;
/** A gap this wide is not read through: reading starts anew from the newest page, and the rest is found by scrolling. */
const WIDEST_GAP = 5_000;
const RETRY_MS = 3_000;

/** Fires `change` (`detail.live`: whether these are news to read out) and `arrived` (`detail`: messages not seen before). */
export class Timeline extends EventTarget {
  /** Whether the end is being read; `log.js` sets it. New messages then push old ones out at the top. */
  following = true;
  /** Whether there is anything before the window; unknown until the first page. */
  hasOlder = true;
  loading = null;
  failed = false;

  #fetchPage;
  #outbox;
  #messages = [];
  /** One's own messages that came before their `ack`, which will tell whether they are entries of the outbox. */
  #held = new Map();
  #attached = false;
  /** The greatest id known to exist. */
  #newest = 0;
  /** Ids above the first and up to the second were missed: as they are read, they count as new. */
  #missed = [0, 0];
  /** Goes up when pages on their way no longer join onto the window. */
  #generation = 0;

  /** `fetchPage({ limit, before | after })` resolves to `{ messages, has_more }`. */
  constructor({ fetchPage, outbox }) {
    super();
    this.#fetchPage = fetchPage;
    this.#outbox = outbox;
    outbox.addEventListener("change", () => {
      this.#release();
      this.#changed(true);
    });
  }

  get messages() {
    return this.#messages;
  }

  get pending() {
    return this.#outbox.entries;
  }

  get attached() {
    return this.#attached;
  }

  /** Everything shown, in order. Entries of the outbox are the ones without an `id`. */
  *items() {
    yield* this.#messages;
    yield* this.#outbox.entries;
  }

  /** For the end of a session: nothing is asked for any more, and what is on its way is not taken. */
  close() {
    this.#discardPages();
    this.#fetchPage = () => new Promise(() => {});
  }

  /** Throws the window away and starts from the newest page. */
  forget(newest) {
    this.#messages = [];
    this.#held.clear();
    this.#attached = false;
    this.hasOlder = true;
    this.#newest = newest;
    return this.showLatest();
  }

  /** What came after `after` and up to `newest` was not delivered and has to be read. */
  missed(after, newest) {
    this.#missed = [after, newest];
    // An `ack` can run ahead of the deliveries: what lies past `after` may have holes before it, and is read again.
    const known = this.#messages.findLastIndex(({ id }) => id <= after) + 1;
    const tooWide = this.following && newest - after > WIDEST_GAP;
    if (known === 0 || tooWide) return this.forget(newest);
    this.#discardPages();
    this.#messages.length = known;
    this.#newest = Math.max(this.#newest, newest);
    this.#attached = false;
    this.#changed(true);
    return this.following ? this.loadNewer() : undefined;
  }

  /** A live message. Ids rise from one call to the next. */
  receive(message) {
    this.#newest = Math.max(this.#newest, message.id);
    this.#arrived([message]);
    this.#place(message);
    this.#trim();
    this.#changed(true);
  }

  /** The message sent under `nonce` is stored as `id`. Its own `message` may have come already, or be yet to come. */
  acknowledge(nonce, id) {
    const { content, username, created_at } = this.#outbox.entries.find((entry) => entry.nonce === nonce) ?? {};
    if (content === undefined) return;
    const stored = this.#held.get(id) ?? { id, content, username, created_at };
    this.#held.delete(id);
    this.#insert({ ...stored, nonce });
    this.#outbox.settle(nonce);
  }

  /** What is needed to show the end of the history now. */
  async showLatest() {
    this.following = true;
    if (this.#attached) return this.#changed(true);
    this.#discardPages();
    await this.#load("latest", { limit: PAGE }, (page) => {
      this.#messages = [];
      this.hasOlder = page.has_more;
      this.#append(page.messages);
    });
    if (!this.failed) await this.loadNewer();
  }

  async loadOlder() {
    const first = this.#messages[0]?.id;
    if (!this.hasOlder || this.loading || first === undefined) return;
    await this.#load("older", { before: first, limit: PAGE }, (page) => {
      // If the top was pushed out meanwhile, the page no longer joins on.
      if (this.#messages[0]?.id !== first) return;
      this.#messages.unshift(...page.messages);
      this.hasOlder = page.has_more;
      if (!this.following && this.#messages.length > WINDOW) {
        this.#messages.length = WINDOW;
        this.#attached = false;
      }
    });
  }

  /** Reads on towards the newest message: a page, or all of it while the end is being followed. */
  async loadNewer() {
    // An empty window is the beginning only if it is known that nothing precedes it.
    if (this.loading || (this.#messages.length === 0 && this.hasOlder)) return;
    const generation = this.#generation;
    while (!this.#attached) {
      const known = this.#newest;
      await this.#load("newer", { after: this.#last(), limit: PAGE }, (page) => {
        this.#append(page.messages);
        this.#attach(page.has_more, known);
        this.#trimTop();
      });
      if (generation !== this.#generation || this.failed || !this.following) return;
    }
  }

  /** After a failure: some time later, and when the server is back. */
  recover() {
    if (!this.failed) return;
    this.failed = false;
    if (this.#messages.length === 0) this.showLatest();
    else if (this.following) this.loadNewer();
    this.#changed(false);
  }

  #discardPages() {
    this.#generation += 1;
    this.loading = null;
  }

  async #load(what, range, take) {
    const generation = this.#generation;
    const known = this.#newest;
    this.loading = what;
    this.failed = false;
    this.#changed(false);
    try {
      const page = await this.#fetchPage(range);
      if (generation !== this.#generation) return;
      take(page);
      if (what === "latest") this.#attach(false, known);
      this.#count(page.messages);
    } catch {
      if (generation !== this.#generation) return;
      this.failed = true;
      setTimeout(() => generation === this.#generation && this.recover(), RETRY_MS);
    }
    this.loading = null;
    this.#changed(false);
  }

  /** `known` is the newest id when a page was asked for: what came to be known since may not be on it. */
  #attach(hasMore, known) {
    this.#attached = !hasMore && (this.#last() >= this.#newest || this.#newest === known);
  }

  #append(messages) {
    for (const message of messages) {
      if (message.id <= this.#last()) continue;
      if (this.#outbox.expects(message)) this.#held.set(message.id, message);
      else this.#messages.push(message);
    }
  }

  #place(message) {
    if (this.#outbox.expects(message)) this.#held.set(message.id, message);
    else this.#insert(message);
  }

  /** Puts a message in its place, if the window reaches there. Nearly always that is the end. */
  #insert(message) {
    let index = this.#messages.length;
    while (index > 0 && this.#messages[index - 1].id > message.id) index -= 1;
    const same = this.#messages[index - 1];
    if (same?.id === message.id) {
      this.#messages[index - 1] = { ...message, nonce: same.nonce ?? message.nonce };
    } else if ((index > 0 || !this.hasOlder) && (index < this.#messages.length || this.#attached)) {
      this.#messages.splice(index, 0, message);
    }
  }

  /** Held messages that no entry can claim any more are somebody's: this person's, from another tab. */
  #release() {
    for (const message of this.#held.values()) {
      if (this.#outbox.expects(message)) continue;
      this.#held.delete(message.id);
      this.#insert(message);
    }
  }

  #trim() {
    if (this.following) {
      this.#trimTop();
    } else if (this.#messages.length > WINDOW_READING) {
      this.#messages.length = WINDOW_READING;
      this.#attached = false;
    }
  }

  #trimTop() {
    const surplus = this.#messages.length - WINDOW;
    if (surplus <= 0) return;
    this.#messages.splice(0, surplus);
    this.hasOlder = true;
  }

  #last() {
    return this.#messages.at(-1)?.id ?? 0;
  }

  #count(messages) {
    const [after, until] = this.#missed;
    const missed = messages.filter(({ id }) => id > after && id <= until);
    if (missed.length === 0) return;
    this.#missed[0] = missed.at(-1).id;
    this.#arrived(missed);
  }

  #arrived(messages) {
    this.dispatchEvent(new CustomEvent("arrived", { detail: messages }));
  }

  #changed(live) {
    this.dispatchEvent(new CustomEvent("change", { detail: { live } }));
  }
}
