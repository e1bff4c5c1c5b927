// Shows a timeline: one `article` a message, a separator a day, and one where this person left off. What stands where is decided
// in `store/timeline.js`; here it is compared with what the page holds, at most once a frame, and the reading position is kept
// through every change.
//
//   new MessageList({ log, top, jump }, { timeline, context, actions, fresh, onSeen })
//     `actions`   retry(nonce), discard(nonce), react(message, emoji, on), goTo(id), copy(text)
//     `fresh`     `{ after, count }`: what is unread when the room is opened, or null
//     `onSeen`    told the id up to which everything has been in sight, each time it may have risen
//   leftOff(fresh), toLatest(), goTo(id), keepPlace(), seen(), relabelDays(), redress(), clearFresh(), choose(step), close()

import { dayInWords, dayOf, t } from "../i18n/index.js";
import { el, isInSight } from "./dom.js";
import { createMessage, dressMessage, foldLong, messageOf, place, redressFate, unfold } from "./message.js";

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
/** How long the message that an address names is marked. */
const MARKED_MS = 3_000;

export class MessageList {
  /** Messages of others that have come since the end was last in sight. */
  unseen = 0;

  #timeline;
  #context;
  #actions;
  #onSeen;
  #log;
  #top;
  #jump;
  /** Elements by the key of their message, in the order they are in the page. */
  #articles = new Map();
  #separators = new Map();
  #fresh;
  /** Whether what is below that line has been seen: what comes next is counted anew. */
  #isFreshRead = false;
  #freshLine = el("div", { class: "fresh", role: "separator" }, el("span"));
  /** Whether the room is still to be opened where its person left off. */
  #atFresh;
  #wanted = null;
  #scheduled = null;
  #history = false;
  #quiet = 0;
  #scrollTop = 0;
  #movedAt = -Infinity;
  #landing = null;
  #anchor = null;
  #abort = new AbortController();
  #resized;

  constructor({ log, top, jump }, { timeline, context, actions, fresh, onSeen }) {
    this.#log = log;
    this.#top = top;
    this.#jump = jump;
    this.#timeline = timeline;
    this.#context = context;
    this.#actions = actions;
    this.#fresh = fresh;
    this.#atFresh = fresh !== null;
    this.#onSeen = onSeen;
    const { signal } = this.#abort;
    timeline.addEventListener("change", ({ detail }) => this.#changed(detail.live), { signal });
    timeline.addEventListener("arrived", ({ detail }) => this.#arrived(detail), { signal });
    log.addEventListener("scroll", () => this.#scrolled(), { signal, passive: true });
    log.addEventListener("click", ({ target }) => this.#clicked(target), { signal });
    log.addEventListener("keydown", (event) => this.#key(event), { signal });
    // A person who takes hold of the log after a jump means to go elsewhere.
    for (const type of ["wheel", "touchstart", "keydown"]) {
      log.addEventListener(type, () => this.#landed(), { signal, passive: true });
    }
    jump.addEventListener("click", () => this.toLatest(true), { signal });
    // The log changes its size with the window, the composer and a phone's keyboard.
    this.#resized = new ResizeObserver(() => {
      // What stands below the log is as wide as what is in it, whatever room its scrollbar takes.
      log.closest(".room").style.setProperty("--gutter", `${(log.offsetWidth - log.clientWidth) / 2}px`);
      this.#fold([...this.#articles.values()]);
      this.keepPlace();
    });
    this.#resized.observe(log);
    this.#changed(false);
  }

  close() {
    this.#abort.abort();
    this.#resized.disconnect();
    this.#cancel();
    clearTimeout(this.#quiet);
    this.#timeline = null;
    this.#top.replaceChildren();
    this.#log.replaceChildren(this.#top);
    this.#jump.hidden = true;
  }

  /** Shows the newest message and stays there. */
  toLatest(focus = false) {
    if (!this.#timeline.following && performance.now() - this.#movedAt < MOVING_MS) {
      clearTimeout(this.#landing);
      this.#landing = setTimeout(() => this.#landed(), LANDING_MS);
    }
    this.#atFresh = false;
    this.#timeline.showLatest();
    this.#toEnd();
    // The button is about to vanish; the keyboard should not be left nowhere.
    if (focus) this.#log.focus();
    this.seen();
  }

  /**
   * Shows the part of the conversation around a message, and marks it. Resolves to whether it is there. `newest` is the greatest
   * id known, if it is not known here yet.
   */
  async goTo(id, newest) {
    this.#landed();
    this.#atFresh = false;
    this.#wanted = id;
    const found = await this.#timeline.showAround(id, newest);
    if (!this.#timeline) return true;
    if (!found) {
      this.#wanted = null;
      if (!this.#timeline.failed) this.toLatest();
    }
    this.#changed(false);
    return found;
  }

  /** What is unread has become known after the room was opened. */
  leftOff(fresh) {
    this.#fresh = fresh;
    this.#isFreshRead = false;
    this.#atFresh = true;
    this.#changed(false);
  }

  clearFresh() {
    this.#fresh = null;
    this.#changed(false);
  }

  #landed() {
    clearTimeout(this.#landing);
    this.#landing = null;
  }

  /** What is in sight of a page that has the focus has been seen. */
  seen() {
    if (!this.#timeline || this.#isLeaving || !isInSight()) return;
    const { following, attached, messages } = this.#timeline;
    if (following && attached) {
      this.unseen = 0;
      this.#isFreshRead = true;
    }
    const last = following && attached ? messages.at(-1) : this.#lastInSight();
    if (last?.id !== undefined) this.#onSeen(last.id);
    this.#label();
  }

  /** Another part of the conversation is on its way: what is shown until then says nothing of what has been read. */
  get #isLeaving() {
    return this.#timeline.loading === "around";
  }

  #lastInSight() {
    const { bottom } = this.#log.getBoundingClientRect();
    const articles = [...this.#articles.values()];
    const next = firstIndex(articles, (article) => article.getBoundingClientRect().bottom > bottom + END_PX);
    return articles[next - 1] && messageOf(articles[next - 1]);
  }

  /**
   * After a change of what is above, or of the log's size: the end if it is followed, else the text that was in sight. The
   * composer calls it too: while a text replaces another it is empty for a moment, and the log, for that moment taller, is
   * moved by the browser as if someone had scrolled.
   */
  keepPlace() {
    if (!this.#timeline) return;
    if (this.#timeline.following) return this.#toEnd();
    const { element, offset } = this.#anchor ?? {};
    if (!element?.isConnected) return;
    const moved = element.getBoundingClientRect().top - this.#log.getBoundingClientRect().top - offset;
    if (Math.abs(moved) >= 1) this.#log.scrollTop += moved;
    this.#scrollTop = this.#log.scrollTop;
  }

  /** At midnight "Today" becomes "Yesterday". */
  relabelDays() {
    for (const separator of this.#separators.values()) nameDay(separator);
  }

  /** The connection came or went. */
  redress() {
    for (const article of this.#articles.values()) redressFate(article, this.#context);
  }

  /** The article chosen by arrow keys moves by `step`; the first time it is the last one in sight. */
  choose(step) {
    const articles = [...this.#articles.values()];
    const chosen = articles.indexOf(document.activeElement?.closest?.("article"));
    const next = chosen === -1 ? articles.indexOf(this.#elementInSight()) : chosen + step;
    articles[Math.max(0, Math.min(articles.length - 1, next))]?.focus();
  }

  #elementInSight() {
    const { bottom } = this.#log.getBoundingClientRect();
    const articles = [...this.#articles.values()];
    return articles[Math.max(0, firstIndex(articles, (article) => article.getBoundingClientRect().bottom > bottom + 1) - 1)];
  }

  #arrived(messages) {
    const others = messages.filter(({ username }) => username !== this.#context.self);
    if ((isInSight() && this.#timeline.following) || others.length === 0) return;
    this.unseen += others.length;
    if (this.#fresh && !this.#isFreshRead) this.#fresh.count += others.length;
    else this.#fresh = { after: others[0].id - 1, count: others.length };
    this.#isFreshRead = false;
    this.#label();
  }

  #label() {
    const { unseen } = this;
    this.#jump.hidden = this.#timeline.following;
    const words = unseen === 0 ? t("log.jump") : t("log.new", { n: unseen });
    const label = this.#jump.firstElementChild;
    if (label.textContent !== words) label.textContent = words;
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
    this.#fold(this.#reconcile());
    this.#showTop();
    if (!this.#goToFresh() && !this.#goToWanted()) this.keepPlace();
    this.#loadMore();
    this.seen();
    this.#label();
  }

  /** Returns the articles that are new. */
  #reconcile() {
    const wanted = [];
    const made = [];
    const articles = new Map();
    const separators = new Map();
    // Where one left off is not here if it lies before the window.
    const [first] = this.#timeline.messages;
    const freshFrom = first?.id > this.#fresh?.after && this.#timeline.hasOlder ? Infinity : (this.#fresh?.after ?? Infinity);
    let fresh = false;
    let previous = null;
    let previousDay = null;
    let previousArticle = null;
    for (const item of this.#timeline.items()) {
      const key = item.nonce ?? item.id;
      const article = this.#articles.get(key) ?? this.#make(item, made);
      if (!article) continue;
      const day = dayOf(item.created_at);
      const startsDay = day !== previousDay;
      if (startsDay) {
        const separator = this.#separators.get(key) ?? createSeparator(day);
        separators.set(key, separator);
        wanted.push(separator);
      }
      const startsFresh = !fresh && item.id > freshFrom && item.username !== this.#context.self;
      if (startsFresh) {
        fresh = true;
        this.#nameFresh();
        wanted.push(this.#freshLine);
      }
      const continues =
        !startsDay && !startsFresh && previous.username === item.username && item.created_at - previous.created_at < GROUP_MS && item.state !== "failed";
      if (previousArticle) previousArticle.classList.toggle("closing", !continues);
      place(article, { continues, closes: true });
      this.#dress(article, item);
      articles.set(key, article);
      wanted.push(article);
      previous = item;
      previousDay = day;
      previousArticle = article;
    }
    // Removing first means that what remains is in order, and insertions are the only moves.
    for (const [key, element] of this.#articles) {
      if (articles.has(key)) continue;
      // The keyboard is not left nowhere.
      if (element.contains(document.activeElement)) this.#log.focus({ preventScroll: true });
      element.remove();
    }
    for (const [key, element] of this.#separators) if (!separators.has(key)) element.remove();
    if (!fresh) this.#freshLine.remove();
    let cursor = this.#top.nextElementSibling;
    for (const element of wanted) {
      if (element === cursor) cursor = cursor.nextElementSibling;
      else this.#log.insertBefore(element, cursor);
    }
    this.#articles = articles;
    this.#separators = separators;
    return made;
  }

  /** One message that cannot be shown costs itself only. */
  #make(item, made) {
    try {
      const article = createMessage(item, this.#context);
      made.push(article);
      return article;
    } catch {
      return null;
    }
  }

  #dress(article, item) {
    try {
      dressMessage(article, item, this.#context);
    } catch {
      // It stays as it was.
    }
  }

  #fold(articles) {
    foldLong(articles);
  }

  #nameFresh() {
    const words = t("log.new", { n: this.#fresh.count });
    this.#freshLine.firstElementChild.textContent = words;
    this.#freshLine.setAttribute("aria-label", words);
  }

  /** Where one left off, if that is not in sight together with the end. */
  #goToFresh() {
    if (!this.#atFresh || this.#articles.size === 0) return false;
    if (this.#freshLine.isConnected || (this.#timeline.attached && !this.#isLeaving)) this.#atFresh = false;
    if (!this.#freshLine.isConnected) return false;
    this.#toEnd();
    const above = this.#freshLine.getBoundingClientRect().top - this.#log.getBoundingClientRect().top;
    if (above >= 0) return false;
    this.#timeline.following = false;
    this.#log.scrollTop += above - this.#log.clientHeight / 4;
    this.unseen = this.#fresh.count;
    this.#settle();
    return true;
  }

  #goToWanted() {
    if (this.#wanted === null) return false;
    const article = this.#articles.get(this.#wanted) ?? [...this.#articles.values()].find(({ dataset }) => dataset.id === String(this.#wanted));
    if (!article) return false;
    this.#wanted = null;
    article.scrollIntoView({ block: "center", behavior: "instant" });
    article.classList.add("marked");
    article.focus({ preventScroll: true });
    setTimeout(() => article.classList.remove("marked"), MARKED_MS);
    this.#settle();
    return true;
  }

  #settle() {
    this.#scrollTop = this.#log.scrollTop;
    this.#mark();
  }

  #clicked(target) {
    const article = target.closest("article");
    const button = target.closest("button");
    if (!article || !button) return;
    const { nonce } = article.dataset;
    if (button.matches(".unfold")) {
      this.#mark();
      unfold(article);
      this.keepPlace();
      article.focus({ preventScroll: true });
    } else if (button.matches(".copy")) {
      this.#actions.copy(button.previousElementSibling.textContent);
    } else if (button.matches(".quote")) {
      this.#actions.goTo(Number(button.dataset.quoted));
    } else if (button.matches(".reaction")) {
      this.#actions.react(messageOf(article), button.dataset.emoji, button.getAttribute("aria-pressed") !== "true");
    } else if (button.matches(".retry, .discard")) {
      if (button.matches(".retry")) this.#actions.retry(nonce);
      else this.#actions.discard(nonce);
      // The button vanishes; the keyboard stays where it was used.
      this.#log.focus();
    }
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const isLog = event.target === this.#log;
    const isArticle = event.target.matches("article");
    if (event.key === "End" && (isLog || isArticle) && !this.#timeline.attached) {
      // The browser scrolls to the end of what is in the page; if that is not the end of the conversation, we do.
      event.preventDefault();
      this.toLatest();
    } else if ((isLog || isArticle) && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      this.choose(event.key === "ArrowUp" ? -1 : 1);
    }
  }

  /** What stands above the first message: that there is more, that it could not be had, or that this is all. */
  #showTop() {
    const { hasOlder, loading, failed } = this.#timeline;
    let words = "";
    if (failed) words = t("log.failed");
    else if (!hasOlder) words = t("log.beginning");
    else if (loading === "older" || loading === "latest") words = t("log.loading");
    if (this.#top.textContent !== words) this.#top.textContent = words;
  }

  /** Whether it is known that nothing has been said here. */
  get isEmpty() {
    if (!this.#timeline) return false;
    const { hasOlder, attached, messages, pending } = this.#timeline;
    return !hasOlder && attached && messages.length === 0 && pending.length === 0;
  }

  /** Prepended history is no news. The region is silent while it goes in and until the browser has told of the change. */
  #hush() {
    if (!this.#history) return;
    this.#history = false;
    this.#log.setAttribute("aria-live", "off");
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.#log.setAttribute("aria-live", "polite"), QUIET_MS);
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
      if (this.#timeline.attached && this.#wanted === null) this.#timeline.following = true;
    } else if (this.#landing) {
      return this.#toEnd();
    } else if (scrollTop < this.#scrollTop - 1) {
      this.#timeline.following = false;
    }
    this.#scrollTop = scrollTop;
  }

  /** Remembers the first text in sight and where it stands. */
  #mark() {
    const { top } = this.#log.getBoundingClientRect();
    const articles = [...this.#articles.values()];
    // The text, since the author's name above it comes and goes with what precedes the message.
    const element = articles[firstIndex(articles, (article) => article.getBoundingClientRect().bottom > top)]?.querySelector(".bubble");
    this.#anchor = element ? { element, offset: element.getBoundingClientRect().top - top } : null;
  }

  #toEnd() {
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#scrollTop = this.#log.scrollTop;
  }

  #loadMore() {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    const ahead = SCREENS_AHEAD * clientHeight;
    const timeline = this.#timeline;
    if (timeline.loading || timeline.failed) return;
    if (!timeline.attached && scrollHeight - scrollTop - clientHeight < ahead) timeline.loadNewer();
    else if (scrollTop < ahead) timeline.loadOlder();
  }
}

/** The first index for which `holds`, of elements for which it holds from some point on. */
function firstIndex(elements, holds) {
  let [low, high] = [0, elements.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(elements[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}

function createSeparator(day) {
  const separator = el("div", { class: "day", role: "separator" }, el("span"));
  separator.day = day;
  nameDay(separator);
  return separator;
}

function nameDay(separator) {
  const words = dayInWords(separator.day);
  separator.setAttribute("aria-label", words);
  separator.firstElementChild.textContent = words;
}
