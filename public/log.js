// Shows the timeline: one `article` a message, a separator a day. What stands where is decided in `timeline.js`; here it is
// compared with what the page holds, at most once a frame, and the reading position is kept through every change.

import { refusal } from "./composer.js";
import { paint } from "./people.js";

/** Within this distance the end counts as reached: scroll positions are fractions of pixels. */
const END_PX = 16;
/** Older messages are asked for when fewer screens than this are left above. */
const SCREENS_AHEAD = 1.5;
/** Messages of one person stand together if no more time than this lies between them. */
const GROUP_MS = 5 * 60 * 1000;
/** History put into the page is not news: screen readers hear of nothing until this has passed. */
const QUIET_MS = 500;
/** A hidden page gets no animation frames, but its log should not fall behind without end. */
const FRAME_AT_LATEST_MS = 250;
/** A jump made so soon after the last movement may meet a scroll of a wheel or key that the browser is still animating… */
const MOVING_MS = 200;
/** …and is held against it for this long. */
const LANDING_MS = 400;

export class LogView {
  /** Messages of others that have come since the end was last in sight. */
  unseen = 0;

  #timeline;
  #self;
  #log;
  #jump;
  #empty;
  #template;
  #onSeen;
  #actions;
  /** Elements by the key of their message, in the order they are in the page. */
  #articles = new Map();
  #separators = new Map();
  #scheduled = null;
  #history = false;
  #quiet = 0;
  #top = 0;
  #movedAt = -Infinity;
  #landing = null;
  #anchor = null;
  #abort = new AbortController();
  #resized;

  /** `actions` has `retry(nonce)` and `discard(nonce)`; `onSeen` is called when `unseen` may have changed. */
  constructor(timeline, self, { log, jump, empty, template, actions, onSeen }) {
    this.#timeline = timeline;
    this.#self = self;
    this.#log = log;
    this.#jump = jump;
    this.#empty = empty;
    this.#template = template;
    this.#actions = actions;
    this.#onSeen = onSeen;
    const { signal } = this.#abort;
    timeline.addEventListener("change", ({ detail }) => this.#changed(detail.live));
    timeline.addEventListener("arrived", ({ detail }) => this.#arrived(detail), { signal });
    log.addEventListener("scroll", () => this.#scrolled(), { signal, passive: true });
    log.addEventListener("click", ({ target }) => this.#clicked(target), { signal });
    log.addEventListener("keydown", (event) => this.#key(event), { signal });
    // Whoever takes hold of the log after a jump means to go elsewhere.
    for (const type of ["wheel", "touchstart", "keydown"]) {
      log.addEventListener(type, () => this.#landed(), { signal, passive: true });
    }
    jump.addEventListener("click", () => this.toLatest(true), { signal });
    // The log changes its size with the window, the composer and a phone's keyboard.
    this.#resized = new ResizeObserver(() => this.keepPlace());
    this.#resized.observe(log);
    this.#changed(false);
  }

  close() {
    this.#abort.abort();
    this.#resized.disconnect();
    this.#cancel();
    this.#timeline = null;
    this.#clear();
  }

  /** Shows the newest message and stays there. */
  toLatest(focus = false) {
    if (!this.#timeline.following && performance.now() - this.#movedAt < MOVING_MS) {
      clearTimeout(this.#landing);
      this.#landing = setTimeout(() => this.#landed(), LANDING_MS);
    }
    this.#timeline.showLatest();
    this.#toEnd();
    // The button is about to vanish; the keyboard should not be left nowhere.
    if (focus) this.#log.focus();
    this.seen();
  }

  #landed() {
    clearTimeout(this.#landing);
    this.#landing = null;
  }

  /** What is at the end has been seen, if it is in sight. */
  seen() {
    if (isHidden() || !this.#timeline.following) return;
    this.unseen = 0;
    this.#label();
  }

  /**
   * After a change of what is above, or of the log's size: the end if it is followed, else the text that was in sight. The
   * composer calls it too: while a text replaces another it is empty for a moment, and the log, for that moment taller, is
   * moved by the browser as if someone had scrolled.
   */
  keepPlace() {
    if (this.#timeline.following) return this.#toEnd();
    const { element, offset } = this.#anchor ?? {};
    if (!element?.isConnected) return;
    const moved = element.getBoundingClientRect().top - this.#log.getBoundingClientRect().top - offset;
    if (Math.abs(moved) >= 1) this.#log.scrollTop += moved;
    this.#top = this.#log.scrollTop;
  }

  /** At midnight "Today" becomes "Yesterday". */
  relabelDays() {
    for (const separator of this.#separators.values()) nameDay(separator);
  }

  #arrived(messages) {
    if (!isHidden() && this.#timeline.following) return;
    this.unseen += messages.filter(({ username }) => username !== this.#self).length;
    this.#label();
  }

  #label() {
    const { unseen } = this;
    this.#jump.hidden = this.#timeline.following;
    this.#jump.textContent = unseen === 0 ? "Jump to latest" : `${unseen} new ${unseen === 1 ? "message" : "messages"}`;
    this.#onSeen(unseen);
  }

  /** Several messages within a frame are one rendering and one layout. */
  #changed(live) {
    if (!this.#timeline) return;
    this.#history ||= !live;
    if (this.#scheduled) return;
    const render = () => {
      this.#cancel();
      this.#render();
    };
    this.#scheduled = { frame: requestAnimationFrame(render), timer: setTimeout(render, FRAME_AT_LATEST_MS) };
  }

  #cancel() {
    if (!this.#scheduled) return;
    cancelAnimationFrame(this.#scheduled.frame);
    clearTimeout(this.#scheduled.timer);
    this.#scheduled = null;
  }

  #render() {
    // Before anything is inserted: where is the reader? Someone who has scrolled up since the last event is no follower.
    this.#look();
    if (!this.#timeline.following) this.#mark();
    this.#hush();
    this.#reconcile();
    this.#showTop();
    this.keepPlace();
    this.#loadMore();
    this.seen();
    this.#label();
  }

  #reconcile() {
    const wanted = [];
    const articles = new Map();
    const separators = new Map();
    let previous = null;
    let previousDay = null;
    for (const item of this.#timeline.items()) {
      const key = item.nonce ?? item.id;
      const article = this.#articles.get(key) ?? this.#create(item);
      const day = dayOf(item.created_at);
      const startsDay = day !== previousDay;
      if (startsDay) {
        const separator = this.#separators.get(key) ?? createSeparator(day);
        separators.set(key, separator);
        wanted.push(separator);
      }
      const continues = !startsDay && previous.username === item.username && item.created_at - previous.created_at < GROUP_MS;
      article.classList.toggle("continued", continues);
      this.#dress(article, item);
      articles.set(key, article);
      wanted.push(article);
      previous = item;
      previousDay = day;
    }
    // Removing first means that what remains is in order, and insertions are the only moves.
    for (const [key, element] of this.#articles) if (!articles.has(key)) element.remove();
    for (const [key, element] of this.#separators) if (!separators.has(key)) element.remove();
    let cursor = this.#log.firstElementChild.nextElementSibling;
    for (const element of wanted) {
      if (element === cursor) cursor = cursor.nextElementSibling;
      else this.#log.insertBefore(element, cursor);
    }
    this.#articles = articles;
    this.#separators = separators;
  }

  #create(item) {
    const article = this.#template.content.firstElementChild.cloneNode(true);
    const author = article.querySelector(".author");
    author.textContent = item.username;
    paint(article, item.username);
    if (item.username === this.#self) article.dataset.own = "";
    article.querySelector(".text").append(...linkify(item.content));
    return article;
  }

  /** What may change in a message once it is shown: its time and its fate. */
  #dress(article, item) {
    const state = item.state ?? "";
    if (article.dataset.id === String(item.id) && article.created_at === item.created_at) return;
    if (item.id !== undefined) article.dataset.id = item.id;
    if (article.created_at !== item.created_at) {
      article.created_at = item.created_at;
      const time = article.querySelector("time");
      const date = new Date(item.created_at);
      time.dateTime = date.toISOString();
      time.textContent = clock.format(date);
      time.title = moment.format(date);
    }
    const fate = article.querySelector(".fate");
    if ((article.dataset.state ?? "") === state && fate.hidden === (state !== "failed")) return;
    if (state) article.dataset.state = state;
    else delete article.dataset.state;
    fate.hidden = state !== "failed";
    fate.querySelector("span").textContent = state === "failed" ? `Not sent. ${refusal(item.reason)}` : "";
    article.dataset.nonce = item.nonce;
  }

  #clicked(target) {
    const { nonce } = target.closest("article")?.dataset ?? {};
    if (!nonce || !target.matches("button")) return;
    if (target.matches(".retry")) this.#actions.retry(nonce);
    else this.#actions.discard(nonce);
    // The button vanishes; the keyboard stays where it was used.
    this.#log.focus();
  }

  /** The browser scrolls to the end of what is in the page; if that is not the end of the conversation, we do. */
  #key(event) {
    if (event.key !== "End" || this.#timeline.attached) return;
    event.preventDefault();
    this.toLatest();
  }

  /** What stands above the first message: that there is more, that it could not be had, or that this is all. */
  #showTop() {
    const { hasOlder, loading, failed, attached, messages } = this.#timeline;
    const top = this.#log.firstElementChild;
    let words = "";
    if (failed) words = "Messages could not be loaded. Trying again…";
    else if (!hasOlder) words = "Beginning of the conversation";
    else if (loading === "older" || loading === "latest") words = "Loading messages…";
    if (top.textContent !== words) top.textContent = words;
    this.#empty.hidden = hasOlder || !attached || messages.length > 0 || this.#timeline.pending.length > 0;
  }

  /** Prepended history is no news. The region is silent while it goes in and until the browser has told of the change. */
  #hush() {
    if (!this.#history) return;
    this.#history = false;
    this.#log.ariaLive = "off";
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => (this.#log.ariaLive = "polite"), QUIET_MS);
  }

  #scrolled() {
    this.#movedAt = performance.now();
    this.#look();
    this.#mark();
    this.#loadMore();
    this.seen();
    this.#label();
  }

  /** The end is followed once it is reached, and left only by scrolling up: growing content does not count as that. */
  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    if (scrollHeight - scrollTop - clientHeight <= END_PX) {
      if (this.#timeline.attached) this.#timeline.following = true;
    } else if (this.#landing) {
      return this.#toEnd();
    } else if (scrollTop < this.#top - 1) {
      this.#timeline.following = false;
    }
    this.#top = scrollTop;
  }

  /** Remembers the first text in sight and where it stands. */
  #mark() {
    const { top } = this.#log.getBoundingClientRect();
    const articles = [...this.#articles.values()];
    let [low, high] = [0, articles.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (articles[middle].getBoundingClientRect().bottom <= top) low = middle + 1;
      else high = middle;
    }
    // The text, since the author's name above it comes and goes with what precedes the message.
    const element = articles[low]?.querySelector(".text");
    this.#anchor = element ? { element, offset: element.getBoundingClientRect().top - top } : null;
  }

  #toEnd() {
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#top = this.#log.scrollTop;
  }

  #loadMore() {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    const ahead = SCREENS_AHEAD * clientHeight;
    const timeline = this.#timeline;
    if (timeline.loading || timeline.failed) return;
    if (!timeline.attached && scrollHeight - scrollTop - clientHeight < ahead) timeline.loadNewer();
    else if (scrollTop < ahead) timeline.loadOlder();
  }

  #clear() {
    for (const element of [...this.#articles.values(), ...this.#separators.values()]) element.remove();
    this.#log.firstElementChild.textContent = "";
    this.#empty.hidden = true;
    this.#jump.hidden = true;
  }
}

export const isHidden = () => document.hidden || document.visibilityState === "hidden";

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const dayThisYear = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const dayBefore = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });

/** A local day as the time of its midnight. */
function dayOf(time) {
  const date = new Date(time);
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}

/** `day` and `now` are times; a day of 23 hours is a day too, hence dates and not differences. */
export function dayInWords(day, now = Date.now()) {
  const today = new Date(dayOf(now));
  if (dayOf(day) === today.getTime()) return "Today";
  if (dayOf(day) === dayOf(today.setDate(today.getDate() - 1))) return "Yesterday";
  return (new Date(day).getFullYear() === new Date(now).getFullYear() ? dayThisYear : dayBefore).format(day);
}

function createSeparator(day) {
  const separator = document.createElement("div");
  separator.setAttribute("role", "separator");
  separator.append(document.createElement("span"));
  separator.day = day;
  nameDay(separator);
  return separator;
}

function nameDay(separator) {
  separator.ariaLabel = separator.firstElementChild.textContent = dayInWords(separator.day);
}

/** Up to white space, quotes, or characters that could make an address look like another. */
const ADDRESS = /\bhttps?:\/\/[^\s<>"\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+/gi;
const CLOSING = /[.,;:!?'"…’”»›。，、；：！？）】」』》]$/u;
const PAIRS = new Map([[")", "("], ["]", "["], ["}", "{"]]);

/** Splits a text at its addresses: `{ text, href }`, `href` null between them. */
export function splitAddresses(text) {
  const parts = [];
  let end = 0;
  const push = (from, to, href) => from < to && parts.push({ text: text.slice(from, to), href });
  for (const { 0: found, index } of text.matchAll(ADDRESS)) {
    const address = withoutClosing(found);
    if (!URL.canParse(address)) continue;
    push(end, index, null);
    end = index + address.length;
    push(index, end, new URL(address).href);
  }
  push(end, text.length, null);
  return parts;
}

/** A sentence's full stop is not part of the address, nor is a bracket that was opened before it. */
function withoutClosing(address) {
  for (;;) {
    const last = address.at(-1);
    const opening = PAIRS.get(last);
    const unpaired = opening && address.split(last).length > address.split(opening).length;
    if (!unpaired && !CLOSING.test(address)) return address;
    address = address.slice(0, -1);
  }
}

function linkify(text) {
  return splitAddresses(text).map(({ text, href }) => {
    if (href === null) return text;
    const link = document.createElement("a");
    link.href = href;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    link.textContent = text;
    return link;
  });
}
