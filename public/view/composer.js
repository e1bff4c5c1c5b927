// Writing: the form below the log, and where its text goes. What is being written is the room's draft; what is sent goes
// to the outbox, and an edit to the server at once.
//
//   new Composer(app, form)
//   load(text)                     another room: its draft; show(placeholder, disabled)
//   focus(), insert(text), reply(message), edit(message), cancel(), forget(id), isEmpty
//   attach(element, take)          `view/dialogs/picture.js`: a preview above the box, and `take()` → the picture to send; null: not yet

import { inWords } from "../api.js";
import { number, t } from "../i18n/index.js";
import { load } from "../load.js";
import { el, icon, paint } from "./dom.js";
import { plain } from "./text.js";

/** Characters are counted as the server counts them: Unicode scalar values, after trimming. */
const MESSAGE_LENGTH = 4_000;
/** How few may be left before it is said. */
const SCARCE = 200;
/** Control characters other than newline and tab, which the server refuses; a paste can bring them unseen. */
const CONTROLS = /[\0-\x08\x0b-\x1f\x7f-\x9f]/;
/** Half of a character, which cannot be sent. */
const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** What a message will be once sent: no white space around it, and whole characters only. */
export const tidy = (text) => text.replace(LONE_SURROGATE, "\ufffd").trim();

export const lengthOf = (text) => [...text].length;

export class Composer {
  #app;
  #form;
  #box;
  #above;
  #replyTo = null;
  #editing = null;
  /** What was being written when an edit began. */
  #before = "";
  #picture = null;
  /** Whether names are completed. */
  #completes = false;

  constructor(app, form) {
    this.#app = app;
    this.#form = form;
    this.#box = form.querySelector("textarea");
    this.#above = form.querySelector(".above");
    this.#box.addEventListener("input", () => this.#changed());
    // What a keyboard on the screen shows on its Enter is asked for when it comes up.
    this.#box.addEventListener("focus", () => (this.#box.enterKeyHint = this.#app.prefs.enterSends ? "send" : "enter"));
    this.#box.addEventListener("keydown", (event) => this.#key(event));
    // A press on the button would take the focus, and with it a phone's keyboard, away for a moment.
    form.querySelector(".send").addEventListener("pointerdown", (event) => event.preventDefault());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    form.addEventListener("pointerdown", ({ target }) => target === form && setTimeout(() => this.focus()));
    this.#measure();
  }

  get isEmpty() {
    return this.#box.value === "" && this.#picture === null;
  }

  get box() {
    return this.#box;
  }

  load(text) {
    this.#replyTo = null;
    this.#editing = null;
    this.#picture?.remove();
    this.#picture = null;
    this.#above.replaceChildren();
    this.#box.value = text;
    this.#measure();
  }

  show(placeholder, disabled = false) {
    this.#box.placeholder = placeholder;
    for (const control of this.#form.elements) control.disabled = disabled;
  }

  focus() {
    this.#box.focus();
  }

  /** Puts `text` where the cursor is. */
  insert(text) {
    if (this.#box.disabled) return;
    const { selectionStart, selectionEnd } = this.#box;
    this.#box.setRangeText(text, selectionStart, selectionEnd, "end");
    this.#changed();
    this.focus();
  }

  reply(message) {
    this.cancel();
    this.#replyTo = message;
    this.#showAbove(() => t("composer.replying", { name: message.username }), message, () => t("composer.notReplying"));
    this.focus();
  }

  edit(message) {
    this.cancel();
    this.#editing = message;
    this.#before = this.#box.value;
    this.#box.value = message.content;
    this.#showAbove(() => t("composer.editing"), message, () => t("composer.notEditing"));
    this.#measure();
    this.focus();
    this.#box.setSelectionRange(message.content.length, message.content.length);
  }

  /** No reply and no edit any more. */
  cancel() {
    if (this.#editing) {
      this.#box.value = this.#before;
      this.#changed();
    }
    this.#replyTo = null;
    this.#editing = null;
    this.#above.querySelector(".replying")?.remove();
  }

  /** A message that is deleted is neither replied to nor edited. */
  forget(id) {
    if (this.#replyTo?.id === id || this.#editing?.id === id) this.cancel();
  }

  attach(element, take) {
    this.#picture?.remove();
    this.#picture = element ? { take, remove: () => element.remove() } : null;
    if (element) this.#above.append(element);
    this.#measure();
  }

  #showAbove(words, { username, content }, dismiss) {
    const close = el("button", { type: "button", class: "icon", "aria-label": dismiss, on: { click: () => this.#dismiss() } }, icon("x"));
    const line = el("div", { class: "replying" }, el("div", {}, el("b", { text: words }), el("span", { dir: "auto", text: () => plain(content) || t("message.picture") })), close);
    this.#above.prepend(paint(line, username));
  }

  #dismiss() {
    this.cancel();
    this.focus();
  }

  #key(event) {
    // Enter that ends an IME composition picks a word. Safari sends it after the composition, told apart by 229 only.
    const composing = event.isComposing || event.keyCode === 229;
    if (event.key === "Enter") return this.#enter(event, composing);
    if (composing || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key === "ArrowUp" && this.isEmpty && !this.#editing) {
      if (this.#editLast()) event.preventDefault();
    } else if (event.key === "Escape" && (this.#replyTo || this.#editing)) {
      event.preventDefault();
      event.stopPropagation();
      this.#dismiss();
    }
  }

  #enter(event, composing) {
    if (event.defaultPrevented || (event.shiftKey && !composing)) return;
    const sends = this.#app.prefs.enterSends || event.ctrlKey || event.metaKey;
    if (!sends && !composing) return;
    event.preventDefault();
    if (!composing && !event.repeat) this.#submit();
  }

  /** In another language. */
  retranslate() {
    this.#measure();
  }

  #changed() {
    this.#measure();
    const { connection, conversation, drafts, room } = this.#app;
    const draft = this.#editing ? this.#before : this.#box.value;
    if (!this.#completes && draft.includes("@")) this.#complete();
    drafts.set(room.id, draft);
    connection.typing(this.#box.value.trim() !== "", room.id);
    conversation.list?.keepPlace();
  }

  async #complete() {
    this.#completes = true;
    try {
      const { Completion } = await load("view/complete.js");
      if (!this.#app.isClosed) new Completion(this.#app, this.#box, this.#form.parentElement.querySelector(".suggest"));
    } catch {
      // Names are written out, then.
      this.#completes = false;
    }
  }

  #submit() {
    const text = tidy(this.#box.value);
    const picture = this.#picture?.take() ?? null;
    // Text does not go without the picture it was written for.
    if (this.#picture && !picture && !this.#editing) return;
    if ((text !== "" || picture) && this.#measure() && this.#send(text, picture)) {
      this.#box.value = this.#editing ? this.#before : "";
      this.#editing = null;
      this.#replyTo = null;
      this.#picture?.remove();
      this.#picture = null;
      this.#above.replaceChildren();
      this.#changed();
    }
    this.#box.focus();
  }

  /** False if it cannot go now. */
  #send(text, picture) {
    const app = this.#app;
    app.say(null);
    if (this.#editing) {
      if (text !== this.#editing.content) this.#saveEdit(this.#editing, text);
      return true;
    }
    if (app.outbox.full) {
      app.say(() => t("composer.full"));
      return false;
    }
    const to = this.#replyTo;
    app.outbox.add({
      room: app.room.id,
      content: text,
      replyTo: to && { id: to.id, username: to.username, content: to.content.slice(0, 280) },
      image: picture,
      username: app.username,
      after: app.connection.lastId ?? 0,
    });
    app.conversation.list.clearFresh();
    app.conversation.list.toLatest();
    return true;
  }

  async #saveEdit(message, text) {
    try {
      await this.#app.connection.edit(message.id, text);
    } catch (error) {
      this.#app.say(() => inWords(error));
      // What was written is not lost with the connection.
      if (!this.#editing) this.edit({ ...message, content: text });
    }
  }

  /** Whether there is one to edit. */
  #editLast() {
    const { hasRooms, conversation, username } = this.#app;
    const last = hasRooms && conversation.timeline.messages.findLast((message) => message.username === username && !message.image);
    if (last) this.edit(last);
    return Boolean(last);
  }

  /** Says what keeps the text from being sent, and how much room is left once that is scarce. */
  #measure() {
    const text = tidy(this.#box.value);
    const left = MESSAGE_LENGTH - lengthOf(text);
    this.#form.querySelector(".counter").textContent = left <= SCARCE ? number(left) : "";
    this.#form.classList.toggle("idle", text === "" && this.#picture === null);
    let problem = "";
    if (left < 0) problem = t("composer.tooLong", { n: MESSAGE_LENGTH });
    else if (CONTROLS.test(text)) problem = t("composer.controls");
    const alert = this.#form.querySelector("[role=alert]");
    // Said once, not at every key.
    if (alert.textContent !== problem) alert.textContent = problem;
    alert.hidden = problem === "";
    if (problem) this.#box.setAttribute("aria-invalid", "true");
    else this.#box.removeAttribute("aria-invalid");
    this.#grow();
    return problem === "";
  }

  /** Where the browser cannot make the box as high as its text. */
  #grow() {
    if (globalThis.CSS?.supports("field-sizing", "content")) return;
    this.#box.style.blockSize = "auto";
    this.#box.style.blockSize = `${this.#box.scrollHeight}px`;
  }
}
