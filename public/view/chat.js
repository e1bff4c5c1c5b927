// One person's chat, from login to logout: makes the parts, and says who hears of what. Dialogs and panels get it as `app`.
//
//   app.username, app.isModerator, app.about (the answer of `GET /about`), app.prefs, app.session
//   app.api, app.connection, app.rooms, app.people, app.outbox, app.drafts, app.composer, app.list, app.notifier
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

import { Api, ApiError, inWords, socketUrl } from "../api.js";
import { Connection } from "../connection.js";
import { t, worded } from "../i18n/index.js";
import { load } from "../load.js";
import { Router } from "../router.js";
import { Drafts, Outbox } from "../store/outbox.js";
import { People } from "../store/people.js";
import { Store } from "../store/prefs.js";
import { LOBBY, Rooms } from "../store/rooms.js";
import { PAGE, Timeline, isMessage } from "../store/timeline.js";
import { Composer } from "./composer.js";
import { avatar, copy, el, tile } from "./dom.js";
import { MessageList } from "./message-list.js";
import { Notifier } from "./notify.js";
import { PeopleView } from "./people.js";
import { RoomsNav, typingInWords } from "./rooms-nav.js";

/** The rooms that were open last are kept as they are read, so that going back and forth is at once. */
const TIMELINES_KEPT = 6;
/** Reading is told this often at most. */
const READ_EVERY_MS = 1_000;
/** Counts that only the server knows are asked for this long after the last reason to. */
const ROOMS_AGAIN_MS = 1_000;
/** After so many tries in vain it is asked whether the server answers otherwise. */
const SUSPICIOUS = 4;
const TOLD_MS = 2_500;
/** Only so narrow a page has the rooms in a sheet; as in the style sheet. */
const NARROW_REM = 56;
const LAST_ROOM_KEY = "chinwag.room";

export class Chat {
  about = {};
  isModerator = false;
  hasRooms = true;
  prefs;
  session;
  username;
  api;
  rooms;
  people;
  outbox;
  drafts;
  connection;
  composer;
  list = null;
  notifier;

  #view;
  #token;
  #router;
  #nav;
  #peopleView;
  #narrow;
  #kept = new Store("localStorage");
  #timelines = new Map();
  #roomId = LOBBY;
  #roomsKnown = false;
  #readTimer = null;
  #readUpTo = null;
  #roomsTimer = null;
  #pictures = null;
  #dressed = "";
  #completes = false;
  #asking = false;
  #opening = new Set();
  #toldTimer = null;
  /** The message that the address names, until it can be asked for. */
  #wanted = null;
  #closed = false;

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
    this.#narrow = new Narrow(NARROW_REM);
    this.#nav = new RoomsNav(this.#find("nav"), this.#find(".rooms-button"), {
      rooms: this.rooms,
      people: this.people,
      drafts: this.drafts,
      self: this.username,
      narrow: this.#narrow,
    });
    this.#peopleView = new PeopleView(this.people, this.username, {
      panel: this.#find("#people"),
      button: this.#find("#people-button"),
      list: this.#find("#people-list"),
      count: this.#find("#online"),
      more: this.#find("#people-more"),
      onPick: (name, element) => this.open("person", name, element),
    });
    this.composer = new Composer(this.#find("form.composer"), {
      send: (message) => this.#send(message),
      onChange: (text, writing) => this.#written(text, writing),
      editLast: () => this.#editLast(),
      enterSends: () => this.prefs.enterSends,
    });
    this.notifier = new Notifier(this, this.#find("#notifications"));
    this.#router = new Router(({ room, message }) => this.#enter(room, message));
    if (/^(Mac|iP)/.test(navigator.platform)) this.#find("kbd").textContent = "⌘ K";
    this.#dressMe();
    this.#listen();
    this.#listenToPage();
    const { room = this.#kept.get(LAST_ROOM_KEY), message = null } = this.#router.current ?? {};
    this.go(Number.isSafeInteger(room) ? room : LOBBY, message, { replace: true });
    this.#showState(this.connection.state);
    this.connection.start();
    this.composer.focus();
  }

  get room() {
    return this.rooms.get(this.#roomId) ?? { id: this.#roomId, kind: "open", name: null, emoji: null, topic: "", members: null, last: null, read: 0, unread: 0 };
  }

  /** `forGood`: the person logged out, and leaves nothing for the next one at this browser. */
  close(forGood) {
    this.#closed = true;
    this.#flushRead();
    this.connection.stop();
    this.#router.close();
    for (const timeline of this.#timelines.values()) timeline.close();
    this.list?.close();
    this.#nav.close();
    this.#peopleView.close();
    this.notifier.close(forGood);
    this.#narrow.close();
    this.outbox.close();
    this.people.clearTyping();
    clearTimeout(this.#readTimer);
    clearTimeout(this.#roomsTimer);
    clearTimeout(this.#toldTimer);
    this.#pictures?.then((pictures) => pictures.close(), () => {});
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
    this.list?.relabelDays();
    this.list?.seen();
    this.notifier.showTitle();
  }

  focused() {
    this.list?.seen();
    this.notifier.showTitle();
  }

  /** The page may not come back. */
  hidden() {
    this.#flushRead();
  }

  midnight() {
    this.list?.relabelDays();
  }

  /** The language or the clock is another. */
  retranslate() {
    this.#dressMe();
    this.#dressRoom();
    this.#showState(this.connection.state);
    this.#showTyping();
    this.composer.retranslate();
    // Both lists are written anew.
    this.people.dispatchEvent(new Event("change"));
    this.#reopen();
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
      if (!this.#closed) await open(this, ...args);
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
    const isOther = this.list === null || id !== this.#roomId;
    if (isOther) {
      if (id !== this.#roomId) this.#leave(this.#roomId);
      this.#roomId = id;
      this.#kept.set(LAST_ROOM_KEY, id);
      this.#reopen(message);
      this.composer.load(this.drafts.get(id));
      this.#nav.current = id;
      this.#dressRoom(true);
      this.#showTyping();
      this.#focusHome();
    }
    if (message !== null) this.#goToMessage(message);
  }

  /** Where the focus belongs when nothing else has it. A phone's keyboard comes up only when it is wanted. */
  #focusHome() {
    if (this.#narrow.matches) this.#find("#log").focus({ preventScroll: true });
    else this.composer.focus();
  }

  #leave(id) {
    const timeline = this.#timelines.get(id);
    if (!timeline || timeline.rest()) return;
    timeline.close();
    this.#timelines.delete(id);
  }

  /** Shows the open room anew. */
  #reopen(message = null) {
    this.list?.close();
    const timeline = this.#timeline(this.#roomId);
    const { unread, read } = this.room;
    this.list = new MessageList(
      { log: this.#find("#log"), top: this.#find(".beginning"), jump: this.#find("#jump") },
      {
        timeline,
        context: {
          self: this.username,
          online: () => this.connection.state === "online",
          isMentioned: this.rooms.isMentioned,
          picture: (image) => this.#picture(image),
        },
        actions: {
          retry: (nonce) => this.outbox.retry(nonce),
          discard: (nonce) => this.outbox.discard(nonce),
          react: (message, emoji, on) => this.react(message, emoji, on),
          goTo: (id) => this.go(this.#roomId, id),
          copy: (text) => this.copy(text),
        },
        fresh: unread > 0 && message === null ? { after: read, count: unread } : null,
        onSeen: (id) => this.#seen(id),
      },
    );
    this.#attachActions();
  }

  #timeline(id) {
    let timeline = this.#timelines.get(id);
    this.#timelines.delete(id);
    if (!timeline) {
      timeline = new Timeline({ fetchPage: (range) => this.#fetchPage(id, range), outbox: this.outbox, room: id, self: this.username });
      timeline.addEventListener("change", () => id === this.#roomId && this.#showNothing());
      if (this.connection.lastId !== null) this.#read(timeline, id);
    }
    this.#timelines.set(id, timeline);
    for (const [other, old] of this.#timelines) {
      if (this.#timelines.size <= TIMELINES_KEPT) break;
      old.close();
      this.#timelines.delete(other);
    }
    return timeline;
  }

  /** The newest page; or, if more than that is unread, where this person left off. */
  async #read(timeline, id) {
    const { unread, read } = this.rooms.get(id) ?? {};
    if (unread > PAGE) await timeline.showAround(read, this.connection.lastId);
    else await timeline.forget(this.connection.lastId);
  }

  #dropOthers() {
    for (const [id, timeline] of this.#timelines) {
      if (id === this.#roomId) continue;
      timeline.close();
      this.#timelines.delete(id);
    }
  }

  async #goToMessage(id) {
    // Before the first connection there is nobody to ask; with it, this is what is shown first.
    this.#wanted = this.connection.lastId === null ? id : null;
    if (this.#wanted !== null) return;
    const found = await this.list.goTo(id, this.connection.lastId);
    if (!found && !this.#closed) this.say(() => t("log.messageGone"));
  }

  async #loadRooms() {
    clearTimeout(this.#roomsTimer);
    this.#roomsTimer = null;
    try {
      const { rooms } = await this.api.rooms();
      if (this.#closed) return;
      this.hasRooms = true;
      this.rooms.load(rooms);
    } catch (error) {
      if (this.#closed || ["unreachable", "redirected", "unauthorized", "unavailable", "rate_limited"].includes(error.code)) return;
      // A server of the first edition: there is one room, and what is unread in it is what has come since.
      this.hasRooms = false;
      if (!this.rooms.get(LOBBY)) this.rooms.load([{ id: LOBBY, kind: "open", name: null, read: this.connection.lastId ?? 0 }]);
    }
    this.#view.classList.toggle("lobby-only", !this.hasRooms);
    const first = !this.#roomsKnown;
    this.#roomsKnown = true;
    if (!this.rooms.get(this.#roomId)) return this.go(LOBBY, null, { replace: true });
    const { unread, read } = this.room;
    // Who follows a link to a message is not led elsewhere.
    if (first && unread > 0 && !this.#router.current?.message) {
      this.list.leftOff({ after: read, count: unread });
      if (unread > PAGE) await this.#timelines.get(this.#roomId).showAround(read, this.connection.lastId ?? 0);
    }
    this.list.seen();
  }

  #loadRoomsLater() {
    this.#roomsTimer ??= setTimeout(() => this.#loadRooms(), ROOMS_AGAIN_MS);
  }

  async #fetchPage(room, range) {
    // Without a connection there is no server to ask; with the next one it is asked again.
    if (this.connection.state !== "online") throw new ApiError("unreachable", "not connected");
    return this.api.messages(room === LOBBY ? undefined : room, range);
  }

  /** What is in sight of a page in focus is read; told to the server now and then. */
  #seen(id) {
    const { attached, messages } = this.#timelines.get(this.#roomId);
    const left = attached ? messages.filter((message) => message.id > id && message.username !== this.username) : null;
    this.rooms.markRead(this.#roomId, id, left);
  }

  #tellRead({ room, id }) {
    if (this.#readUpTo && this.#readUpTo.room !== room) this.#flushRead();
    this.#readUpTo = { room, id };
    this.#readTimer ??= setTimeout(() => this.#flushRead(), READ_EVERY_MS);
  }

  #flushRead() {
    clearTimeout(this.#readTimer);
    this.#readTimer = null;
    if (this.#readUpTo && this.hasRooms) this.connection.read(this.#readUpTo.room, this.#readUpTo.id);
    this.#readUpTo = null;
  }

  // What comes from the server.

  #listen() {
    const on = (type, handle) => this.connection.addEventListener(type, ({ detail }) => handle(detail));
    on("state", (state) => this.#showState(state));
    on("welcome", (frame) => {
      this.isModerator = frame.moderator === true;
      this.people.take(frame);
      this.#loadRooms();
      for (const timeline of this.#timelines.values()) timeline.recover();
    });
    on("forget", ({ last_id }) => {
      this.#dropOthers();
      if (this.#wanted !== null) this.#goToMessage(this.#wanted);
      else this.#timelines.get(this.#roomId)?.forget(last_id);
    });
    on("gap", ({ after, last_id }) => {
      this.#dropOthers();
      this.#timelines.get(this.#roomId)?.missed(after, last_id);
      this.#loadRoomsLater();
    });
    on("message", (message) => {
      if (!isMessage(message)) return;
      this.rooms.message(message);
      this.#timelines.get(message.room)?.receive(message);
      this.people.silent(message.username, message.room);
      this.notifier.message(message);
    });
    for (const type of ["edit", "delete", "react"]) {
      on(type, (frame) => {
        this.#timelines.get(frame.room)?.[type](frame);
        this.rooms[type]?.(frame);
        if (type === "delete") this.composer.forget(frame.message);
      });
    }
    on("room", ({ id, room }) => {
      this.rooms.take(room);
      // Its user was added, and perhaps removed before that, while this page was away: what it shows is of the time before.
      const timeline = room?.read === id && this.#timelines.get(room.id);
      if (timeline && timeline.messages.length > 0) timeline.forget(id);
    });
    on("room_gone", ({ room }) => {
      this.rooms.gone(room);
      this.#timelines.get(room)?.close();
      this.#timelines.delete(room);
      if (room !== this.#roomId) return;
      this.go(LOBBY, null, { replace: true });
      this.say(() => t("rooms.gone"));
    });
    on("read", (frame) => this.rooms.read(frame));
    on("ack", ({ nonce, id }) => {
      const entry = this.outbox.entries.find((entry) => entry.nonce === nonce);
      const timeline = entry && this.#timelines.get(entry.room);
      if (timeline) timeline.acknowledge(nonce, id);
      else this.outbox.settle(nonce);
    });
    on("people", (frame) => this.people.take(frame));
    on("failing", (tries) => tries === SUSPICIOUS && this.#suspect());
    on("ended", () => this.session.expire(this.#token));
    this.people.addEventListener("typing", ({ detail }) => detail === this.#roomId && this.#showTyping());
    this.rooms.addEventListener("change", () => this.#roomsChanged());
    this.rooms.addEventListener("seen", ({ detail }) => this.#tellRead(detail));
    this.rooms.addEventListener("stale", () => this.#loadRoomsLater());
    this.outbox.addEventListener("change", () => {
      this.#dropUnsendable();
      this.#showStrip();
      this.#showNothing();
    });
  }

  /** What was written for a room that is gone has no place where it could be shown. */
  #dropUnsendable() {
    const { entries } = this.outbox;
    const lost = entries.find(({ room, state, reason }) => state === "failed" && reason?.code === "not_found" && !this.rooms.get(room));
    if (!lost) return;
    this.say(() => t("rooms.lost", { text: lost.content }));
    this.outbox.discard(lost.nonce);
  }

  #roomsChanged() {
    this.#dressRoom();
    this.notifier.showTitle();
  }

  // What the person does.

  #listenToPage() {
    const click = (selector, action) => this.#find(selector).addEventListener("click", action);
    click("#new-room", () => this.open("new-room"));
    click("#new-message", () => this.open("new-message"));
    click("#invite", () => this.open("invite"));
    click("#invite-here", () => this.open("invite"));
    click("#settings", () => this.open("settings"));
    click("#finder", () => this.open("palette"));
    click("#search-button", () => this.open("search"));
    click("#room-button", () => this.open("room", this.room));
    click("#try-now", () => this.connection.tryNow());
    click("#chat-error button", () => {
      this.say(null);
      this.#focusHome();
    });
    click("#say-hello", () => this.composer.insert("👋"));
    click("#add-picture", () => this.open("picture"));
    click("#emoji", ({ currentTarget }) => this.open("emoji", currentTarget, (emoji) => this.composer.insert(emoji)));
    this.#view.addEventListener("keydown", (event) => this.#key(event));
    for (const type of ["paste", "drop"]) this.#view.addEventListener(type, (event) => this.#takePicture(event));
  }

  /** Without them messages are read and written all the same; the next room that is opened tries again. */
  async #attachActions() {
    try {
      const { attach } = await load("view/actions.js");
      if (!this.#closed) attach(this, this.#find("#log"));
    } catch {
      // As above.
    }
  }

  #key(event) {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      this.open("palette");
    } else if (event.key === "?" && !event.target.matches("input, textarea, select")) {
      event.preventDefault();
      this.open("settings", "help");
    } else if (event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey && !event.defaultPrevented) {
      // Typing while the log has the focus goes into the composer; what a button does with space stays.
      const { target } = event;
      if (target.id === "log" ? event.key !== " " : target.matches("article") && event.key !== " ") this.composer.focus();
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

  #written(text, writing) {
    if (!this.#completes && text.includes("@")) this.#complete();
    this.drafts.set(this.#roomId, text);
    this.connection.typing(writing, this.#roomId);
    this.list?.keepPlace();
    if (this.#peopleView.isOpen) this.#peopleView.open(false);
  }

  async #complete() {
    this.#completes = true;
    try {
      const { Completion } = await load("view/complete.js");
      if (!this.#closed) new Completion(this, this.composer.box, this.#find(".suggest"));
    } catch {
      // Names are written out, then.
      this.#completes = false;
    }
  }

  #send({ text, replyTo, editing, picture }) {
    this.say(null);
    if (editing) return this.#saveEdit(editing, text);
    if (this.outbox.full) {
      this.say(() => t("composer.full"));
      return false;
    }
    this.outbox.add({
      room: this.#roomId,
      content: text,
      replyTo: replyTo && { id: replyTo.id, username: replyTo.username, content: replyTo.content.slice(0, 280) },
      image: picture,
      username: this.username,
      after: this.connection.lastId ?? 0,
    });
    this.list.clearFresh();
    this.list.toLatest();
    return true;
  }

  #saveEdit(message, text) {
    if (text === message.content) return true;
    this.connection.edit(message.id, text).catch((error) => {
      this.say(() => inWords(error));
      // What was written is not lost with the connection.
      if (!this.composer.isEditing) this.composer.edit({ ...message, content: text });
    });
    return true;
  }

  #editLast() {
    if (!this.hasRooms) return false;
    const last = this.#timelines.get(this.#roomId).messages.findLast(({ username, image }) => username === this.username && !image);
    if (last) this.composer.edit(last);
    return last !== undefined;
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

  async #picture(image) {
    this.#pictures ??= load("view/pictures.js").then(({ Pictures }) => new Pictures(this.api)).catch((error) => {
      // The next picture tries again.
      this.#pictures = null;
      throw error;
    });
    return (await this.#pictures).address(image.id);
  }

  // What is shown.

  #find(selector) {
    return this.#view.querySelector(selector);
  }

  #dressMe() {
    const me = this.#find(".me .who");
    me.firstElementChild.textContent = this.username;
    this.#find(".me .avatar").replaceWith(avatar(this.username, "here"));
  }

  #dressRoom(anew = false) {
    const { room } = this;
    const name = this.rooms.nameOf(room);
    const facts = JSON.stringify([room.id, name, room.emoji, room.topic, room.archived, room.kind, t("composer.placeholder")]);
    const bar = this.#find(".room-bar");
    if (!anew && this.#dressed === facts) return;
    this.#dressed = facts;
    bar.querySelector("h2 bdi").textContent = name;
    bar.querySelector(".topic").textContent = room.topic;
    const face = room.kind === "direct" ? avatar(this.rooms.faceOf(room)) : tile(room.emoji || name.slice(0, 1).toUpperCase());
    bar.querySelector(".face").replaceChildren(face);
    const nothing = this.#find("#empty");
    nothing.querySelector(".face").replaceChildren(face.cloneNode(true));
    this.composer.show(room.archived ? t("rooms.isArchived") : t("composer.placeholder", { name }), room.archived);
    this.notifier.showTitle();
  }

  #showTyping() {
    const names = this.people.typing(this.#roomId);
    const line = this.#find("#typing");
    const words = el("span", { text: typingInWords(names) });
    const faces = names.slice(0, 2).map((name) => avatar(name));
    line.replaceChildren(...(names.length > 0 ? [el("span", { class: "faces", "aria-hidden": "true" }, ...faces), words] : []));
  }

  /** What stands there where no message does. */
  #showNothing() {
    const { state, lastId } = this.connection;
    const isAway = lastId === null && (state === "reconnecting" || state === "offline");
    this.#find("#empty").hidden = this.list?.isEmpty !== true;
    this.#find("#away").hidden = !isAway || this.outbox.in(this.#roomId).length > 0;
  }

  #showState(state) {
    const words = t(`state.${state}`);
    const status = this.#find("#connection");
    status.dataset.state = state;
    status.textContent = words;
    const copy = this.#find(".server .state");
    copy.dataset.state = state;
    copy.textContent = words;
    this.#showNothing();
    if (state !== "online") this.people.clearTyping();
    this.list?.redress();
    this.#showStrip();
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
    if (!this.#closed && this.connection.state === "reconnecting") this.say(write);
  }

  /** A strip of words only when something is wrong. It is not there for a moment's absence. */
  #showStrip() {
    const { state } = this.connection;
    const strip = this.#find(".strip");
    const hadFocus = strip.contains(document.activeElement);
    strip.hidden = state === "online" || state === "connecting";
    if (strip.hidden && hadFocus) this.#focusHome();
    if (strip.hidden) return;
    const waiting = this.outbox.entries.filter(({ state }) => state === "pending").length;
    strip.querySelector("b").textContent = t(`strip.${state}`);
    strip.querySelector("span:not(.spin)").textContent = waiting > 0 ? t("strip.waiting", { n: waiting }) : t("strip.writeOn");
  }
}

/** Whether the page is narrow, measured as the style sheet does: in `rem`, so that large text counts. Fires `change`. */
class Narrow extends EventTarget {
  #rem;
  #observer;
  matches = false;

  constructor(rem) {
    super();
    this.#rem = rem;
    this.#measure();
    this.#observer = new ResizeObserver(() => this.#measure());
    this.#observer.observe(document.body);
  }

  close() {
    this.#observer.disconnect();
  }

  #measure() {
    const size = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
    const matches = document.body.clientWidth < this.#rem * size;
    if (matches === this.matches) return;
    this.matches = matches;
    this.dispatchEvent(new Event("change"));
  }
}

/** The name of this tab, as long as it lives. */
function tabName(tab) {
  let name = tab.get("chinwag.tab");
  if (typeof name !== "string") {
    name = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    tab.set("chinwag.tab", name);
  }
  return name;
}
