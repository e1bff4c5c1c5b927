// One person's chat, from login to logout: makes the parts, and says who hears of what. Dialogs and panels get it as `app`.
//
//   app.username, app.isModerator, app.about (the answer of `GET /about`), app.prefs, app.session
//   app.api, app.connection, app.rooms, app.people, app.outbox, app.drafts, app.conversation, app.composer, app.notifier
//   app.room                     the open ROOM
//   app.hasRooms                 false on a server of the first edition, which has the lobby only
//   app.go(room, message)        opens a room, or a message in it
//   app.open(name, ...args)      runs `open(app, ...args)` of `view/dialogs/NAME.js`, loaded when it is first wanted
//   app.showPanel(element), app.closePanel()     a panel beside the conversation (on a phone: in its place)
//   app.say(write)               tells what went wrong, dismissable: `write()` gives the words; null takes it away
//   app.tell(words)              tells what went well, for a moment; app.copy(text) copies and says so
//   app.attempt(promise)         awaits it, and says what went wrong; resolves to whether it went well
//   app.direct(name)             opens the conversation with one person
//   app.logOut()                 asks first if something is unsent
//   app.isClosed                 that has happened: what comes late is for nobody

import { Api, inWords, socketUrl } from "../api.js";
import { Connection } from "../connection.js";
import { t, worded } from "../i18n/index.js";
import { load } from "../load.js";
import { Router } from "../router.js";
import { Drafts, Outbox, tabName } from "../store/outbox.js";
import { People } from "../store/people.js";
import { Store } from "../store/prefs.js";
import { LOBBY, Rooms } from "../store/rooms.js";
import { isMessage } from "../store/timeline.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { avatar, copy } from "./dom.js";
import { Notifier } from "./notify.js";
import { PeopleView } from "./people.js";
import { RoomsNav } from "./rooms-nav.js";

/** Counts that only the server knows are asked for this long after the last reason to. */
const ROOMS_AGAIN_MS = 1_000;
/** After so many tries in vain it is asked whether the server answers otherwise. */
const SUSPICIOUS = 4;
const TOLD_MS = 2_500;
const LAST_ROOM_KEY = "chinwag.room";

export class Chat {
  about = {};
  isModerator = false;
  hasRooms = true;
  isClosed = false;

  #view;
  #token;
  #router;
  #nav;
  #peopleView;
  #kept = new Store("localStorage");
  #roomsKnown = false;
  #roomsTimer = null;
  #asking = false;
  #opening = new Set();
  #toldTimer = null;

  constructor(view, { session, prefs, tab }) {
    this.#view = view;
    this.session = session;
    this.prefs = prefs;
    this.username = session.username;
    this.#token = session.token;
    this.api = new Api(this.#token, () => session.expire(this.#token));
    this.rooms = new Rooms(this.username);
    this.people = new People(this.username);
    this.outbox = new Outbox(this.#kept, `chinwag.outbox.${this.username}/`, tabName(tab));
    this.drafts = new Drafts(tab, this.#kept, `chinwag.draft.${this.username}/`);
    this.connection = new Connection({ url: socketUrl(), token: this.#token, outbox: this.outbox, network: navigator.onLine });
    this.#nav = new RoomsNav(this, this.#find("nav"), this.#find(".rooms-button"));
    this.#peopleView = new PeopleView(this.people, this.username, {
      panel: this.#find("#people"),
      button: this.#find("#people-button"),
      list: this.#find("#people-list"),
      count: this.#find("#online"),
      more: this.#find("#people-more"),
      onPick: (name, element) => this.open("person", name, element),
    });
    this.conversation = new Conversation(this, view);
    this.composer = new Composer(this, this.#find("form.composer"));
    this.notifier = new Notifier(this, this.#find("#notifications"));
    this.#router = new Router(({ room, message }) => this.#enter(room, message));
    if (/^(Mac|iP)/.test(navigator.platform)) this.#find("kbd").textContent = "⌘ K";
    this.#find(".me bdi").textContent = this.username;
    this.#find(".me .avatar").replaceWith(avatar(this.username, "here"));
    this.#listen();
    this.#listenToPage();
    const { room = this.#kept.get(LAST_ROOM_KEY), message = null } = this.#router.current ?? {};
    this.go(Number.isSafeInteger(room) ? room : LOBBY, message, { replace: true });
    this.conversation.showState();
    this.connection.start();
    this.composer.focus();
  }

  get room() {
    const { room: id } = this.conversation;
    return this.rooms.get(id) ?? { id, kind: "open", name: null, emoji: null, topic: "", members: null, last: null, read: 0, unread: 0 };
  }

  /** `forGood`: the person logged out, and leaves nothing for the next one at this browser. */
  close(forGood) {
    this.isClosed = true;
    this.conversation.close();
    this.connection.stop();
    this.#router.close();
    this.#nav.close();
    this.#peopleView.close();
    this.notifier.close(forGood);
    this.outbox.close();
    this.people.clearTyping();
    clearTimeout(this.#roomsTimer);
    clearTimeout(this.#toldTimer);
    // Closed as by Escape, so that what belongs to them ends too.
    for (const dialog of document.querySelectorAll("dialog")) dialog.dispatchEvent(new Event("cancel"));
    if (!forGood) return;
    this.outbox.clear();
    this.drafts.clear();
    this.#kept.delete(LAST_ROOM_KEY);
    history.replaceState(null, "", location.pathname + location.search);
  }

  network(available) {
    this.connection.network(available);
  }

  /** The page is shown again, or has the focus again. */
  shown() {
    this.connection.wake();
    this.conversation.list?.relabelDays();
    this.focused();
  }

  focused() {
    this.conversation.list?.seen();
    this.notifier.showTitle();
  }

  /** The page may not come back. */
  hidden() {
    this.conversation.flushRead();
  }

  midnight() {
    this.conversation.list?.relabelDays();
  }

  /** The language or the clock is another. */
  retranslate() {
    this.conversation.retranslate();
    this.composer.retranslate();
    // Both lists are written anew.
    this.people.dispatchEvent(new Event("change"));
  }

  set server(about) {
    this.about = about;
    this.#find("h1").textContent = this.#find(".server .title").textContent = about.name || "chinwag";
    this.notifier.showTitle();
    this.notifier.followPush();
  }

  say(write) {
    const error = this.#find("#chat-error");
    worded(error.querySelector("span"), "text", write ?? (() => ""));
    error.hidden = write === null;
  }

  /** What went well, for a moment. */
  tell(words) {
    clearTimeout(this.#toldTimer);
    const told = this.#find("#told");
    told.textContent = words;
    this.#toldTimer = setTimeout(() => (told.textContent = ""), TOLD_MS);
  }

  async copy(text) {
    await copy(text);
    this.tell(t("message.copied"));
  }

  async attempt(promise) {
    try {
      await promise;
      return true;
    } catch (error) {
      this.say(() => (error?.code ? inWords(error) : t("error.other")));
      return false;
    }
  }

  go(room, message = null, options) {
    this.#router.go(room, message, options);
  }

  async direct(name) {
    await this.attempt(
      this.api.openDirect(name).then((room) => {
        this.rooms.take(room);
        this.go(room.id);
      }),
    );
  }

  async open(name, ...args) {
    // A second press while it is on its way opens nothing more.
    if (this.#opening.has(name)) return;
    this.#opening.add(name);
    try {
      const { open } = await load(`view/dialogs/${name}.js`);
      this.#opening.delete(name);
      if (!this.isClosed) await open(this, ...args);
    } catch {
      this.say(() => t("error.module"));
    } finally {
      this.#opening.delete(name);
    }
  }

  showPanel(element) {
    this.closePanel();
    this.#nav.open(false);
    this.#view.append(element);
    this.#view.dataset.panel = "";
  }

  closePanel() {
    this.#view.querySelector(":scope > .panel.extra")?.remove();
    delete this.#view.dataset.panel;
  }

  async logOut() {
    const unsent = this.outbox.entries.length;
    if (unsent > 0) {
      const sure = await this.#confirm({ title: t("logout.title", { n: unsent }), text: t("logout.text"), yes: t("logout.yes"), no: t("logout.no") });
      if (!sure) return;
    }
    this.session.logOut();
  }

  // The rooms.

  /** Opens a room, or another part of it. */
  #enter(id, message = null) {
    if (this.#nav.isOpen) this.#nav.open(false, true);
    // A person's card may have led here, and lies over what it led to.
    this.#peopleView.open(false);
    if (this.#roomsKnown && !this.rooms.get(id)) return this.go(LOBBY, null, { replace: true });
    if (this.conversation.list === null || id !== this.conversation.room) {
      this.#kept.set(LAST_ROOM_KEY, id);
      this.composer.load(this.drafts.get(id));
      this.#nav.current = id;
      this.conversation.open(id, message);
      this.focusHome();
    }
    if (message !== null) this.conversation.goTo(message);
  }

  /** Where the focus belongs when nothing else has it. A phone's keyboard comes up only when it is wanted. */
  focusHome() {
    if (this.#nav.isNarrow) this.#find("#log").focus({ preventScroll: true });
    else this.composer.focus();
  }

  async #loadRooms() {
    clearTimeout(this.#roomsTimer);
    this.#roomsTimer = null;
    try {
      const { rooms } = await this.api.rooms();
      if (this.isClosed) return;
      this.hasRooms = true;
      this.rooms.load(rooms);
    } catch (error) {
      if (this.isClosed || ["unreachable", "redirected", "unauthorized", "unavailable", "rate_limited"].includes(error.code)) return;
      // A server of the first edition: there is one room, and what is unread in it is what has come since.
      this.hasRooms = false;
      if (!this.rooms.get(LOBBY)) this.rooms.load([{ id: LOBBY, kind: "open", name: null, read: this.connection.lastId ?? 0 }]);
    }
    this.#view.classList.toggle("lobby-only", !this.hasRooms);
    const first = !this.#roomsKnown;
    this.#roomsKnown = true;
    if (!this.rooms.get(this.conversation.room)) return this.go(LOBBY, null, { replace: true });
    // Who follows a link to a message is not led elsewhere.
    if (first && !this.#router.current?.message) await this.conversation.leftOff();
    this.conversation.list.seen();
  }

  #loadRoomsLater() {
    this.#roomsTimer ??= setTimeout(() => this.#loadRooms(), ROOMS_AGAIN_MS);
  }

  // What comes from the server.

  #listen() {
    const on = (type, handle) => this.connection.addEventListener(type, ({ detail }) => handle(detail));
    on("state", (state) => state !== "online" && this.people.clearTyping());
    on("welcome", (frame) => {
      this.isModerator = frame.moderator === true;
      this.people.take(frame);
      this.#loadRooms();
    });
    on("gap", () => this.#loadRoomsLater());
    on("message", (message) => {
      if (!isMessage(message)) return;
      this.rooms.message(message);
      this.people.silent(message.username, message.room);
      this.notifier.message(message);
    });
    on("edit", (frame) => this.rooms.edit(frame));
    on("delete", (frame) => {
      this.rooms.delete(frame);
      this.composer.forget(frame.message);
    });
    on("room", ({ room }) => this.rooms.take(room));
    on("room_gone", ({ room }) => {
      this.rooms.gone(room);
      if (room !== this.conversation.room) return;
      this.go(LOBBY, null, { replace: true });
      this.say(() => t("rooms.gone"));
    });
    on("read", (frame) => this.rooms.read(frame));
    on("people", (frame) => this.people.take(frame));
    on("failing", (tries) => tries === SUSPICIOUS && this.#suspect());
    on("ended", () => this.session.expire(this.#token));
    this.rooms.addEventListener("change", () => this.notifier.showTitle());
    this.rooms.addEventListener("stale", () => this.#loadRoomsLater());
    this.outbox.addEventListener("change", () => this.#dropUnsendable());
    // Writing means: away with the list.
    this.drafts.addEventListener("change", () => this.#peopleView.isOpen && this.#peopleView.open(false));
  }

  /** What was written for a room that is gone has no place where it could be shown. */
  #dropUnsendable() {
    const { entries } = this.outbox;
    const lost = entries.find(({ room, state, reason }) => state === "failed" && reason?.code === "not_found" && !this.rooms.get(room));
    if (!lost) return;
    this.say(() => t("rooms.lost", { text: lost.content }));
    this.outbox.discard(lost.nonce);
  }

  /** A server that answers, and whose socket is refused all the same: waiting would be in vain, and somebody has to know. */
  async #suspect() {
    let write = () => t("app.refused");
    try {
      await this.api.messages(undefined, { limit: 1 });
    } catch (error) {
      if (error.code !== "redirected") return;
      write = () => inWords(error);
    }
    if (!this.isClosed && this.connection.state === "reconnecting") this.say(write);
  }

  // What the person does.

  #listenToPage() {
    const click = (selector, action) => this.#find(selector).addEventListener("click", action);
    for (const name of ["new-room", "new-message", "invite", "settings"]) click(`#${name}`, () => this.open(name));
    click("#invite-here", () => this.open("invite"));
    click("#finder", () => this.open("palette"));
    click("#search-button", () => this.open("search"));
    click("#room-button", () => this.open("room", this.room));
    click("#try-now", () => this.connection.tryNow());
    click("#chat-error button", () => {
      this.say(null);
      this.focusHome();
    });
    click("#say-hello", () => this.composer.insert("👋"));
    click("#add-picture", () => this.open("picture"));
    click("#emoji", ({ currentTarget }) => this.open("emoji", currentTarget, (emoji) => this.composer.insert(emoji)));
    this.#view.addEventListener("keydown", (event) => this.#key(event));
    for (const type of ["paste", "drop"]) this.#view.addEventListener(type, (event) => this.#takePicture(event));
  }

  #key(event) {
    const { altKey, key, target } = event;
    const isCommand = event.ctrlKey || event.metaKey;
    if (isCommand && !altKey && key.toLowerCase() === "k") {
      event.preventDefault();
      this.open("palette");
    } else if (key === "?" && !target.matches("input, textarea, select")) {
      event.preventDefault();
      this.open("settings", "help");
    } else if (key.length === 1 && key !== " " && !isCommand && !altKey && !event.defaultPrevented && target.matches("#log, article")) {
      // Typing while the log has the focus goes into the composer; what a button does with space stays.
      this.composer.focus();
    }
  }

  /** A picture that is pasted or dropped; text that comes with a picture of itself, as from a word processor, stays text. */
  #takePicture(event) {
    const { files, types } = event.clipboardData ?? event.dataTransfer ?? { files: [], types: [] };
    const picture = [...files].find(({ type }) => type.startsWith("image/"));
    if (!picture || this.room.archived || types.includes("text/plain")) return;
    event.preventDefault();
    this.open("picture", picture);
  }

  react(message, emoji, on) {
    return this.attempt(this.connection.react(message.id, emoji, on));
  }

  async remove(message, andBan = false) {
    const words = andBan
      ? { title: t("ban.title", { name: message.username }), text: t("ban.text"), yes: t("ban.yes") }
      : { title: t("delete.title"), text: t("delete.text"), yes: t("delete.yes") };
    if (!(await this.#confirm(words))) return;
    if (andBan) await this.attempt(this.api.ban(message.username, true));
    else await this.attempt(this.connection.delete(message.id));
  }

  /** One question at a time: a second press while it is on its way asks nothing more. */
  async #confirm(words) {
    if (this.#asking) return false;
    this.#asking = true;
    try {
      const { confirm } = await load("view/dialogs/dialog.js");
      return await confirm(words);
    } catch {
      this.say(() => t("error.module"));
      return false;
    } finally {
      this.#asking = false;
    }
  }

  #find(selector) {
    return this.#view.querySelector(selector);
  }
}
