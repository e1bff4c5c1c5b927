// The conversation that is open: what is shown of its room, and how far this person has read. The timelines of those
// that were open before it are kept and hear what is live, so that going back and forth is at once. When something was
// missed they are dropped: only what is open is worth reading again.
//
//   new Conversation(app, view)
//   room, timeline, list      the id of the open room; its Timeline and MessageList, once it is open
//   open(room, message), goTo(message)      `message`: the one that is gone to next
//   leftOff()                 what is unread has become known after the room was opened
//   showState(), flushRead(), retranslate(), close()

import { ApiError } from "../api.js";
import { t } from "../i18n/index.js";
import { load } from "../load.js";
import { LOBBY } from "../store/rooms.js";
import { PAGE, Timeline, isMessage } from "../store/timeline.js";
import { avatar, el, tile } from "./dom.js";
import { MessageList } from "./message-list.js";
import { typingInWords } from "./rooms-nav.js";

const TIMELINES_KEPT = 6;
/** Reading is told this often at most. */
const READ_EVERY_MS = 1_000;

export class Conversation {
  room = LOBBY;
  list = null;

  #app;
  #view;
  /** By room, in the order in which they were opened. */
  #timelines = new Map();
  #readTimer = null;
  #readUpTo = null;
  #pictures = null;
  #dressed = "";
  /** The message that the address names, until it can be asked for. */
  #wanted = null;

  constructor(app, view) {
    this.#app = app;
    this.#view = view;
    this.#listen();
  }

  close() {
    this.flushRead();
    for (const timeline of this.#timelines.values()) timeline.close();
    this.list?.close();
    this.#pictures?.then((pictures) => pictures.close(), () => {});
  }

  get timeline() {
    return this.#timelines.get(this.room);
  }

  open(room, message) {
    // A reader who was far back comes back to the end, which is not here.
    if (room !== this.room && this.timeline?.rest() === false) this.#drop(this.room);
    this.room = room;
    this.#show(message);
    this.#showNothing();
    this.#dress();
    this.#showTyping();
  }

  async goTo(message) {
    const { connection } = this.#app;
    // Before the first connection there is nobody to ask; with it, this is what is shown first.
    this.#wanted = connection.lastId === null ? message : null;
    if (this.#wanted !== null) return;
    const found = await this.list.goTo(message, connection.lastId);
    if (!found && !this.#app.isClosed) this.#app.say(() => t("log.messageGone"));
  }

  async leftOff() {
    const { connection, room } = this.#app;
    if (room.unread === 0) return;
    this.list.leftOff({ after: room.read, count: room.unread });
    if (room.unread > PAGE) await this.timeline.showAround(room.read, connection.lastId ?? 0);
  }

  /** The language or the clock is another. */
  retranslate() {
    this.#dress();
    this.showState();
    this.#showTyping();
    this.#show();
  }

  #listen() {
    const { connection, outbox, people, rooms } = this.#app;
    const on = (type, handle) => connection.addEventListener(type, ({ detail }) => handle(detail));
    on("state", () => this.showState());
    on("welcome", () => {
      for (const timeline of this.#timelines.values()) timeline.recover();
    });
    on("forget", ({ last_id }) => {
      this.#dropOthers();
      if (this.#wanted !== null) this.goTo(this.#wanted);
      else this.timeline?.forget(last_id);
    });
    on("gap", ({ after, last_id }) => {
      this.#dropOthers();
      this.timeline?.missed(after, last_id);
    });
    on("message", (message) => isMessage(message) && this.#timelines.get(message.room)?.receive(message));
    for (const type of ["edit", "delete", "react"]) on(type, (frame) => this.#timelines.get(frame.room)?.[type](frame));
    on("room", ({ id, room }) => {
      // Its user was added, and perhaps removed before that, while this page was away: it shows what was before.
      const timeline = this.#timelines.get(room?.id);
      if (room?.read === id && timeline?.messages.length > 0) timeline.forget(id);
    });
    on("room_gone", ({ room }) => this.#drop(room));
    on("ack", ({ nonce, id }) => {
      const entry = outbox.entries.find((entry) => entry.nonce === nonce);
      const timeline = this.#timelines.get(entry?.room);
      if (timeline) timeline.acknowledge(nonce, id);
      else outbox.settle(nonce);
    });
    outbox.addEventListener("change", () => {
      this.#showStrip();
      this.#showNothing();
    });
    people.addEventListener("typing", ({ detail }) => detail === this.room && this.#showTyping());
    rooms.addEventListener("change", () => this.#dress());
    rooms.addEventListener("seen", ({ detail }) => this.#tellRead(detail));
  }

  // The messages.

  #drop(room) {
    this.#timelines.get(room)?.close();
    this.#timelines.delete(room);
  }

  #dropOthers() {
    for (const room of this.#timelines.keys()) if (room !== this.room) this.#drop(room);
  }

  #show(message = null) {
    const app = this.#app;
    this.list?.close();
    const timeline = this.timeline ?? this.#read(this.room);
    this.#timelines.delete(this.room);
    this.#timelines.set(this.room, timeline);
    if (this.#timelines.size > TIMELINES_KEPT) this.#drop(this.#timelines.keys().next().value);
    const { unread, read } = app.room;
    this.list = new MessageList(
      { log: this.#find("#log"), top: this.#find(".beginning"), jump: this.#find("#jump") },
      {
        timeline,
        context: {
          self: app.username,
          online: () => app.connection.state === "online",
          isMentioned: app.rooms.isMentioned,
          picture: (image) => this.#picture(image),
        },
        actions: {
          retry: (nonce) => app.outbox.retry(nonce),
          discard: (nonce) => app.outbox.discard(nonce),
          react: (message, emoji, on) => app.react(message, emoji, on),
          goTo: (id) => app.go(this.room, id),
          copy: (text) => app.copy(text),
        },
        fresh: unread > 0 && message === null ? { after: read, count: unread } : null,
        onSeen: (id) => this.#seen(id),
      },
    );
    this.#attachActions();
  }

  /** The newest page; or, if more than that is unread, where this person left off. */
  #read(room) {
    const { api, connection, outbox, rooms, username } = this.#app;
    const fetchPage = async (range) => {
      // Without a connection there is no server to ask; with the next one it is asked again.
      if (connection.state !== "online") throw new ApiError("unreachable", "not connected");
      return api.messages(room === LOBBY ? undefined : room, range);
    };
    const timeline = new Timeline({ fetchPage, outbox, room, self: username });
    timeline.addEventListener("change", () => room === this.room && this.#showNothing());
    const { unread, read } = rooms.get(room) ?? {};
    if (connection.lastId === null) return timeline;
    if (unread > PAGE) timeline.showAround(read, connection.lastId);
    else timeline.forget(connection.lastId);
    return timeline;
  }

  /** Without them messages are read and written all the same; the next room that is opened tries again. */
  async #attachActions() {
    try {
      const { attach } = await load("view/actions.js");
      if (!this.#app.isClosed) attach(this.#app, this.#find("#log"));
    } catch {
      // As above.
    }
  }

  async #picture(image) {
    this.#pictures ??= load("view/pictures.js").then(({ Pictures }) => new Pictures(this.#app.api)).catch((error) => {
      // The next picture tries again.
      this.#pictures = null;
      throw error;
    });
    return (await this.#pictures).address(image.id);
  }

  /** What is in sight of a page in focus is read; told to the server now and then. */
  #seen(id) {
    const { rooms, username } = this.#app;
    const { attached, messages } = this.timeline;
    const left = attached ? messages.filter((message) => message.id > id && message.username !== username) : null;
    rooms.markRead(this.room, id, left);
  }

  #tellRead({ room, id }) {
    if (this.#readUpTo && this.#readUpTo.room !== room) this.flushRead();
    this.#readUpTo = { room, id };
    this.#readTimer ??= setTimeout(() => this.flushRead(), READ_EVERY_MS);
  }

  flushRead() {
    clearTimeout(this.#readTimer);
    this.#readTimer = null;
    const { connection, hasRooms } = this.#app;
    if (this.#readUpTo && hasRooms) connection.read(this.#readUpTo.room, this.#readUpTo.id);
    this.#readUpTo = null;
  }

  // What is shown around them.

  #find(selector) {
    return this.#view.querySelector(selector);
  }

  #dress() {
    const { room, rooms, composer, notifier } = this.#app;
    const name = rooms.nameOf(room);
    const facts = JSON.stringify([room.id, name, room.emoji, room.topic, room.archived, room.kind, t("composer.placeholder")]);
    if (this.#dressed === facts) return;
    this.#dressed = facts;
    this.#find(".room-bar bdi").textContent = name;
    this.#find(".topic").textContent = room.topic;
    const face = room.kind === "direct" ? avatar(rooms.faceOf(room)) : tile(room.emoji || name.slice(0, 1).toUpperCase());
    this.#find(".room-bar .face").replaceChildren(face);
    this.#find("#empty .face").replaceChildren(face.cloneNode(true));
    composer.show(room.archived ? t("rooms.isArchived") : t("composer.placeholder", { name }), room.archived);
    notifier.showTitle();
  }

  #showTyping() {
    const names = this.#app.people.typing(this.room);
    const words = el("span", { text: typingInWords(names) });
    const faces = names.slice(0, 2).map((name) => avatar(name));
    this.#find("#typing").replaceChildren(...(names.length > 0 ? [el("span", { class: "faces", "aria-hidden": "true" }, ...faces), words] : []));
  }

  /** What stands there where no message does. */
  #showNothing() {
    const { connection, outbox } = this.#app;
    const { state, lastId } = connection;
    const isAway = lastId === null && (state === "reconnecting" || state === "offline");
    this.#find("#empty").hidden = this.list?.isEmpty !== true;
    this.#find("#away").hidden = !isAway || outbox.in(this.room).length > 0;
  }

  showState() {
    const { state } = this.#app.connection;
    for (const status of [this.#find("#connection"), this.#find(".server .state")]) {
      status.dataset.state = state;
      status.textContent = t(`state.${state}`);
    }
    this.#showNothing();
    this.list?.redress();
    this.#showStrip();
  }

  /** A strip of words only when something is wrong. It is not there for a moment's absence. */
  #showStrip() {
    const { connection, outbox } = this.#app;
    const { state } = connection;
    const strip = this.#find(".strip");
    const hadFocus = strip.contains(document.activeElement);
    strip.hidden = state === "online" || state === "connecting";
    if (strip.hidden && hadFocus) this.#app.focusHome();
    if (strip.hidden) return;
    const waiting = outbox.entries.filter(({ state }) => state === "pending").length;
    this.#find(".strip b").textContent = t(`strip.${state}`);
    this.#find(".strip p span").textContent = waiting > 0 ? t("strip.waiting", { n: waiting }) : t("strip.writeOn");
  }
}
