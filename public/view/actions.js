// What can be done with a message, one list three ways: a bar on hover or focus, a sheet on a long press, and both by Enter on a
// message chosen by arrow keys. Loaded once the chat is there.
//
//   attach(app, log)      watches the log; to be called for each log once

import { t } from "../i18n/index.js";
import { addressOf } from "../router.js";
import { openDialog } from "./dialogs/dialog.js";
import { el, icon } from "./dom.js";
import { messageOf } from "./message.js";

/** How long a finger rests on a message to mean it, and how far it may slip. */
const LONG_PRESS_MS = 450;
const SLIP_PX = 10;
const QUICK = 3;
/** If the server does not say. */
const REACTIONS = ["👍", "❤️", "😂", "😮", "😢", "🙏", "🎉", "👀"];

const attached = new WeakSet();

export function attach(app, log) {
  if (attached.has(log)) return;
  attached.add(log);
  new Actions(app, log);
}

class Actions {
  #app;
  #log;
  #bar = null;
  #press = null;
  /** Whether the finger that rests on the log has opened the sheet. */
  #isHeld = false;

  constructor(app, log) {
    this.#app = app;
    this.#log = log;
    log.addEventListener("pointermove", (event) => this.#hover(event), { passive: true });
    log.addEventListener("pointerleave", () => this.#hide());
    log.addEventListener("focusin", ({ target }) => target.closest("article") && this.#show(target.closest("article")));
    log.addEventListener("focusout", ({ relatedTarget }) => !log.contains(relatedTarget) && this.#hide());
    log.addEventListener("keydown", (event) => this.#key(event));
    log.addEventListener("pointerdown", (event) => this.#down(event));
    for (const type of ["pointerup", "pointercancel", "scroll"]) log.addEventListener(type, () => this.#up(), { passive: true });
    log.addEventListener("pointermove", (event) => this.#move(event), { passive: true });
    log.addEventListener("contextmenu", (event) => this.#press && event.preventDefault());
    for (const type of ["touchend", "touchcancel"]) log.addEventListener(type, (event) => this.#lifted(event));
  }

  /** The actions of a message, in their order: `{ name, icon, run, danger }`. */
  #of(message) {
    const app = this.#app;
    const own = message.username === app.username;
    const stored = message.id !== undefined;
    const { room } = app;
    const writable = app.hasRooms && stored && !room.archived;
    const moderates = app.isModerator && room.kind === "open" && !own;
    return [
      writable && { name: "reply", icon: "reply", run: () => app.composer.reply(message) },
      message.content && { name: "copyText", icon: "copy", run: () => app.copy(message.content) },
      stored && { name: "copyLink", icon: "link", run: () => app.copy(new URL(addressOf(room.id, message.id), location.href).href) },
      writable && own && { name: "edit", icon: "edit", run: () => app.composer.edit(message) },
      app.hasRooms && stored && (own || moderates) && { name: "delete", icon: "trash", danger: true, run: () => app.remove(message) },
      app.hasRooms && stored && moderates && { name: "ban", icon: "ban", danger: true, run: () => app.remove(message, true) },
    ].filter(Boolean);
  }

  #canReact(message) {
    return this.#app.hasRooms && message.id !== undefined && !this.#app.room.archived;
  }

  get #emoji() {
    const { reactions } = this.#app.about;
    return Array.isArray(reactions) && reactions.length > 0 ? reactions : REACTIONS;
  }

  // The bar.

  /** What scrolls by under a pointer that stands still is not pointed at. */
  #hover({ target, pointerType, movementX, movementY }) {
    if (pointerType !== "touch" && (movementX !== 0 || movementY !== 0)) this.#show(target.closest("article"));
  }

  #show(article) {
    if (!article || this.#bar?.parentElement === article) return;
    if (this.#bar?.contains(document.activeElement)) return;
    this.#hide();
    const message = messageOf(article);
    if (!message || message.state) return;
    this.#bar = el("div", { class: "tools", role: "toolbar", "aria-label": t("message.actions") });
    if (this.#canReact(message)) {
      this.#bar.append(
        ...this.#emoji.slice(0, QUICK).map((emoji) => this.#reaction(article, emoji)),
        this.#tool({ name: "react", icon: "react", run: () => this.#showEmoji(article) }),
        el("hr"),
      );
    }
    for (const action of this.#of(message)) this.#bar.append(this.#tool(action));
    this.#bar.addEventListener("keydown", (event) => this.#keyInBar(event));
    // A bar that has the focus stays: pressed by a pointer it must not take it, or no other message would show its own.
    this.#bar.addEventListener("mousedown", (event) => event.preventDefault());
    article.append(this.#bar);
  }

  #hide() {
    this.#bar?.remove();
    this.#bar = null;
  }

  #tool({ name, icon: picture, run, danger }) {
    const words = t(`message.${name}`);
    const press = () => {
      // The question takes the focus, and the bar goes with it: afterwards the focus is to return to the message.
      if (danger) this.#bar.parentElement.focus();
      run();
    };
    return el("button", { type: "button", class: danger ? "icon danger" : "icon", tabindex: "-1", "aria-label": words, title: words, on: { click: press } }, icon(picture));
  }

  #reaction(article, emoji) {
    const react = () => this.#toggle(messageOf(article), emoji);
    return el("button", { type: "button", class: "icon emoji", tabindex: "-1", "aria-label": emoji, text: emoji, on: { click: react } });
  }

  #toggle(message, emoji) {
    const mine = message.reactions?.some((reaction) => reaction.emoji === emoji && reaction.mine) === true;
    this.#app.react(message, emoji, !mine);
  }

  /** In place of the bar: all there are. */
  #showEmoji(article) {
    const before = [...this.#bar.children];
    const buttons = this.#emoji.map((emoji) => this.#reaction(article, emoji));
    this.#bar.append(...buttons);
    // The focus goes over before what had it is gone, or the bar would go with it.
    if (this.#bar.contains(document.activeElement)) buttons[0].focus();
    for (const element of before) element.remove();
  }

  // By keyboard.

  #key(event) {
    const { target, key } = event;
    if (target === this.#log && key === "Escape") return this.#app.composer.focus();
    if (!target.matches("article")) return;
    if (key === "Enter" || key === "ContextMenu") {
      event.preventDefault();
      this.#show(target);
      this.#bar?.querySelector("button")?.focus();
    } else if (key === "Escape") {
      event.preventDefault();
      this.#app.composer.focus();
    }
  }

  #keyInBar(event) {
    const buttons = [...this.#bar.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const forwards = getComputedStyle(this.#bar).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    const backwards = forwards === "ArrowLeft" ? "ArrowRight" : "ArrowLeft";
    const to = { [forwards]: at + 1, [backwards]: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      buttons[(to + buttons.length) % buttons.length].focus();
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      this.#bar.parentElement.focus();
    }
  }

  // By touch.

  #down({ pointerType, target, clientX, clientY }) {
    const article = target.closest("article");
    if (pointerType !== "touch" || !article || target.closest("a, button")) return;
    this.#press = { clientX, clientY, timer: setTimeout(() => this.#pressed(article), LONG_PRESS_MS) };
  }

  #move({ clientX, clientY }) {
    if (this.#press && Math.hypot(clientX - this.#press.clientX, clientY - this.#press.clientY) > SLIP_PX) this.#up();
  }

  #up() {
    clearTimeout(this.#press?.timer);
    this.#press = null;
  }

  /** The sheet is under the finger by now, whose end must not press what is there. */
  #lifted(event) {
    if (this.#isHeld && event.cancelable) event.preventDefault();
    this.#isHeld = false;
  }

  #pressed(article) {
    const message = messageOf(article);
    if (!message || message.state) return;
    this.#isHeld = true;
    navigator.vibrate?.(10);
    getSelection()?.removeAllRanges();
    const run = (action) => () => {
      dialog.close();
      action();
    };
    const emoji = (picture) => {
      const mine = message.reactions?.some((reaction) => reaction.emoji === picture && reaction.mine) === true;
      return el("button", { type: "button", "aria-pressed": String(mine), "aria-label": picture, text: picture, on: { click: run(() => this.#app.react(message, picture, !mine)) } });
    };
    const line = ({ name, icon: picture, run: action, danger }) =>
      el("button", { type: "button", class: danger ? "line danger" : "line", on: { click: run(action) } }, icon(picture), t(`message.${name}`));
    const actions = this.#of(message);
    const list = el(
      "div",
      { role: "toolbar", "aria-label": t("message.actions"), "aria-orientation": "vertical" },
      this.#canReact(message) ? el("div", { class: "quick", role: "group", "aria-label": t("message.react") }, ...this.#emoji.map(emoji)) : null,
      el("div", { class: "group" }, ...actions.filter(({ danger }) => !danger).map(line)),
      actions.some(({ danger }) => danger) ? el("div", { class: "group" }, ...actions.filter(({ danger }) => danger).map(line)) : null,
    );
    const dialog = openDialog({ title: t("message.actions"), class: "sheet actions", closable: false }, likenessOf(article), list);
  }
}

/** A message once more, to be looked at only, above what can be done with it: a finger covers what it rests on. */
function likenessOf(article) {
  const likeness = article.cloneNode(true);
  for (const element of likeness.querySelectorAll(".tools, .reactions, .unfold")) element.remove();
  likeness.classList.remove("marked", "continued");
  likeness.classList.add("closing");
  likeness.removeAttribute("tabindex");
  likeness.inert = true;
  return likeness;
}
