// The messages of one room: a window onto the history, in the order of their ids, with what is not yet acknowledged after them.
// No DOM: `view/message-list.js` shows what is here.
//
//   new Timeline({ fetchPage, outbox, room })       `fetchPage({ limit, before | after | around })` → `{ messages, has_more }`
//   messages, pending, items(), attached, hasOlder, loading, failed, following
//   receive(message), edit, delete, react (the frames), acknowledge(nonce, id)
//   forget(newest), missed(after, newest)           at a start and after a `resync`
//   showLatest(), showAround(id), loadOlder(), loadNewer(), recover(), rest(), close()
//
// A message is never changed in place: one that is different is another object, and so is known to be shown anew.
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
/** Deletes and edits are remembered this many back: a page that was read before them may arrive after them. */
const REMEMBERED = 500;
/** What a quote repeats of the text, in characters. */
const QUOTE_LENGTH = 140;
/** Names told with a reaction. */
const REACTION_NAMES = 10;

/** Fires `change` (`detail.live`: whether these are news to read out) and `arrived` (`detail`: messages not seen before). */
export class Timeline extends EventTarget {
  /** Whether the end is being read; the view sets it. New messages then push old ones out at the top. */
  following = true;
  /** Whether there is anything before the window; unknown until the first page. */
  hasOlder = true;
  loading = null;
  failed = false;

  #fetchPage;
  #outbox;
  #room;
  #self;
  #messages = [];
  /** By message, the last `edit` heard; null once it is deleted, which wins. */
  #revised = new Map();
  /** One's own messages that came before their `ack`, which will tell whether they are entries of the outbox. */
  #held = new Map();
  #attached = false;
  /** The greatest id known to exist. */
  #newest = 0;
  /** Ids above the first and up to the second were missed: as they are read, they count as new. */
  #missed = [0, 0];
  /** Goes up when pages on their way no longer join onto the window. */
  #generation = 0;

  constructor({ fetchPage, outbox, room = 1, self = "" }) {
    super();
    this.#fetchPage = fetchPage;
    this.#outbox = outbox;
    this.#room = room;
    this.#self = self;
    outbox.addEventListener("change", this.#outboxChanged);
  }

  #outboxChanged = () => {
    this.#release();
    this.#changed(true);
  };

  get messages() {
    return this.#messages;
  }

  get pending() {
    return this.#outbox.in(this.#room);
  }

  get attached() {
    return this.#attached;
  }

  /** Everything shown, in order. Entries of the outbox are the ones without an `id`. */
  *items() {
    yield* this.#messages;
    yield* this.pending;
  }

  /** For the end of a session: nothing is asked for any more, and what is on its way is not taken. */
  close() {
    this.#discardPages();
    this.#fetchPage = () => new Promise(() => {});
    this.#outbox.removeEventListener("change", this.#outboxChanged);
  }

  /**
   * Nobody looks any more. What is shown first when somebody does again is enough, and is there at once. False if it is not here:
   * a reader who was far back comes back to the end.
   */
  rest() {
    this.following = true;
    if (this.#attached) this.#trimTop(PAGE);
    return this.#attached;
  }

  find(id) {
    return this.#messages.find((message) => message.id === id);
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
    return Promise.all([this.#readAgain(), this.following ? this.loadNewer() : undefined]);
  }

  /** What is shown may have been edited or deleted meanwhile: a `resync` tells nothing of that. */
  async #readAgain() {
    const generation = this.#generation;
    let from = this.#messages[0]?.id - 1;
    const until = this.#last();
    while (from < until) {
      let page;
      try {
        page = checked(await this.#fetchPage({ after: from, limit: PAGE }));
      } catch {
        // Nothing is lost by it, and the next connection asks again.
        return;
      }
      if (generation !== this.#generation) return;
      const last = page.has_more ? page.messages.at(-1)?.id ?? until : until;
      this.#replace(from, Math.min(last, until), page.messages);
      from = last;
    }
  }

  /** Puts what was read in the place of what is shown with ids above `from` and up to `until`. */
  #replace(from, until, messages) {
    const read = new Map(messages.map((message) => [message.id, message]));
    this.#messages = this.#messages
      .map((shown) => {
        if (shown.id <= from || shown.id > until) return shown;
        const message = read.get(shown.id);
        return message ? this.#current({ ...message, ...(shown.nonce && { nonce: shown.nonce }) }) : null;
      })
      .filter(Boolean);
    this.#changed(false);
  }

  /** A live message. Ids rise from one call to the next. */
  receive(message) {
    this.#newest = Math.max(this.#newest, message.id);
    this.#arrived([message]);
    this.#place(message);
    this.#trim();
    this.#changed(true);
  }

  /** The frame `edit`. */
  edit(frame) {
    if (this.#revised.get(frame.message) === null) return;
    this.#remember(frame.message, frame);
    this.#revise(({ id, reply_to: quoted }) => id === frame.message || quoted?.id === frame.message);
  }

  /** The frame `delete`. */
  delete({ message }) {
    this.#remember(message, null);
    this.#held.delete(message);
    this.#revise(({ id, reply_to: quoted }) => id === message || quoted?.id === message);
  }

  /** The frame `react`. */
  react({ message, username, emoji, on }) {
    const index = this.#messages.findIndex(({ id }) => id === message);
    if (index === -1) return;
    const before = this.#messages[index];
    const reactions = reacted(before.reactions ?? [], { username, emoji, on, mine: username === this.#self });
    if (reactions === before.reactions) return;
    this.#messages[index] = { ...before, reactions };
    this.#changed(false);
  }

  #remember(message, what) {
    this.#revised.delete(message);
    this.#revised.set(message, what);
    if (this.#revised.size > REMEMBERED) this.#revised.delete(this.#revised.keys().next().value);
  }

  #revise(concerns) {
    if (!this.#messages.some(concerns)) return;
    this.#messages = this.#messages.map((message) => (concerns(message) ? this.#current(message) : message)).filter(Boolean);
    this.#changed(false);
  }

  /** A message as it is by what was heard since it was read; null if it is deleted. */
  #current(message) {
    const revision = this.#revised.get(message.id);
    if (revision === null) return null;
    let current = message;
    if (revision && !(message.edited_at > revision.edited_at)) {
      current = { ...current, content: revision.content, edited_at: revision.edited_at };
    }
    const quoted = this.#revised.get(message.reply_to?.id);
    if (quoted === null) current = { ...current, reply_to: { id: message.reply_to.id } };
    else if (quoted) current = { ...current, reply_to: { ...message.reply_to, content: cut(quoted.content) } };
    return current;
  }

  /** The message sent under `nonce` is stored as `id`. Its own `message` may have come already, or be yet to come. */
  acknowledge(nonce, id) {
    const { content, username, created_at, room, reply_to, image } = this.#outbox.entries.find((entry) => entry.nonce === nonce) ?? {};
    if (content === undefined) return;
    // Sent twice, it is acknowledged twice: what came from the server meanwhile, and has perhaps been edited, goes before what was written.
    const known = this.#held.get(id) ?? this.find(id);
    const stored = known ?? { id, room, content, username, created_at, ...(reply_to && { reply_to }), ...(image && { image }) };
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

  /** The part of the history around a message. Resolves to whether that message is there. */
  async showAround(id, newest = this.#newest) {
    this.following = false;
    this.#newest = Math.max(this.#newest, newest);
    if (this.find(id)) return true;
    this.#discardPages();
    await this.#load("around", { around: id, limit: PAGE }, (page) => {
      this.#messages = [];
      this.hasOlder = page.has_more;
      this.#append(page.messages);
      this.#attached = false;
      if (page.has_newer === false) this.#attach(false, this.#newest);
    });
    return this.find(id) !== undefined;
  }

  async loadOlder() {
    const first = this.#messages[0]?.id;
    if (!this.hasOlder || this.loading || first === undefined) return;
    await this.#load("older", { before: first, limit: PAGE }, (page) => {
      // If the top was pushed out meanwhile, the page no longer joins on.
      if (this.#messages[0]?.id !== first) return;
      this.#messages.unshift(...page.messages.map((message) => this.#current(message)).filter(Boolean));
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
      const page = checked(await this.#fetchPage(range));
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
    for (const read of messages) {
      const message = this.#current(read);
      if (message === null || message.id <= this.#last()) continue;
      if (this.#outbox.expects(message)) this.#held.set(message.id, message);
      else this.#messages.push(message);
    }
  }

  #place(message) {
    if (this.#outbox.expects(message)) this.#held.set(message.id, message);
    else this.#insert(message);
  }

  /** Puts a message in its place, if the window reaches there. Nearly always that is the end. */
  #insert(read) {
    const message = this.#current(read);
    if (message === null) return;
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

  #trimTop(most = WINDOW) {
    const surplus = this.#messages.length - most;
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

/** One message of another shape costs itself only; a page that is none is a failure. */
function checked(page) {
  return { ...page, messages: page.messages.filter(isMessage) };
}

export const isMessage = (message) =>
  Number.isSafeInteger(message?.id) && typeof message.username === "string" && typeof message.content === "string" && isTime(message.created_at);

/** What `Date` can hold. */
export const isTime = (time) => Number.isFinite(time) && Math.abs(time) <= 8.64e15;

const cut = (text) => [...text].slice(0, QUOTE_LENGTH).join("");

/** The reactions of a message after one more, or one less; the same list if it changes nothing. */
function reacted(reactions, { username, emoji, on, mine }) {
  const known = reactions.find((reaction) => reaction.emoji === emoji) ?? { emoji, count: 0, mine: false, names: [] };
  const had = mine ? known.mine : known.names.includes(username);
  if (had === on) return reactions;
  const names = on ? [...known.names, username].slice(0, REACTION_NAMES) : known.names.filter((name) => name !== username);
  const next = { emoji, count: Math.max(names.length, known.count + (on ? 1 : -1)), mine: mine ? on : known.mine, names };
  if (!reactions.includes(known)) return [...reactions, next];
  return reactions.map((reaction) => (reaction === known ? next : reaction)).filter(({ count }) => count > 0);
}
