// Who is connected: authentication, delivery in order, presence, typing. One `Connection` a socket.

import { hooks } from "./hooks.mjs";
import { LIMITS, Refusal } from "./rules.mjs";

/** Frames a second from one client, and how many at once, before it counts as abuse. */
const FRAME_RATE = 100;
const FRAME_BURST = 1_000;
const CONNECTIONS_MAX = 5_000;
const NAMES_LISTED = 200;

export class Connections {
  #chat;
  #all = new Set();
  #deadlines;
  #typed = new Map();
  #counting = false;
  #presenceAt = 0;
  #presenceTimer = null;

  constructor(chat, deadlines) {
    this.#chat = chat;
    this.#deadlines = deadlines;
    chat.on("event", (event) => this.#everyone((connection) => connection.deliver(event)));
    chat.on("read", (user, room, id) => this.#everyone((connection) => {
      if (connection.user === user && connection.rooms) connection.send({ type: "read", room, id });
    }));
    chat.on("ended", (session) => this.#everyone((connection) => {
      if (connection.session === session) connection.socket.close(1008, "the session has ended");
      if (connection.session === session) connection.leave();
    }));
    setInterval(() => this.#everyone((connection) => connection.beat()), deadlines.ping / 4).unref();
  }

  get isFull() {
    return this.#all.size >= CONNECTIONS_MAX;
  }

  take(socket) {
    const connection = new Connection(this, this.#chat, socket, this.#deadlines);
    this.#all.add(connection);
    socket.on("gone", () => {
      this.#all.delete(connection);
      connection.leave();
    });
  }

  stop() {
    for (const { socket } of this.#all) socket.close(1001, "the server stops");
  }

  #everyone(act) {
    for (const connection of [...this.#all]) act(connection);
  }

  isOnline(user) {
    return !user.bot && [...this.#all].some((connection) => connection.user === user);
  }

  online() {
    const names = new Set([...this.#all].filter(({ user }) => user && !user.bot).map(({ user }) => user.name));
    const users = [...names].sort((a, b) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1)).slice(0, NAMES_LISTED);
    return { online: names.size, users };
  }

  /** `user` came or went: told by name, or counted where there are too many for that. */
  changed(type, user) {
    if (user.bot) return;
    const { online } = this.online();
    if (online > LIMITS.count_above) this.#counting = true;
    if (!this.#counting) return this.#everyone((one) => one.send({ type, username: user.name }));
    const last = online < LIMITS.names_below;
    if (last) this.#counting = false;
    this.#presenceTimer ??= setTimeout(() => {
      this.#presenceTimer = null;
      this.#presenceAt = Date.now();
      this.#everyone((one) => one.send({ type: "presence", ...this.online() }));
    }, Math.max(0, this.#presenceAt + 1_000 - Date.now()));
  }

  typing(user, room) {
    const now = Date.now();
    const key = `${user.number} ${room.id}`;
    if (this.#counting || now - (this.#typed.get(key) ?? 0) < 1_000) return;
    if (this.#typed.size > CONNECTIONS_MAX) this.#typed.clear();
    this.#typed.set(key, now);
    this.#everyone((one) => {
      if (!one.user || one.user === user || !this.#chat.mayRead(one.user, room)) return;
      if (one.rooms) one.send({ type: "typing", username: user.name, room: room.id });
      else if (room.id === 1) one.send({ type: "typing", username: user.name });
    });
  }
}

class Connection {
  socket;
  /** Null until authenticated, and again when gone. */
  user = null;
  session = null;
  rooms = false;
  /** The last event that was sent, or was not for this connection. */
  #position = 0;
  #behind = false;
  #connections;
  #chat;
  #deadlines;
  #tokens = { left: FRAME_BURST, at: Date.now() };
  #pinged = Date.now();
  #authTimer;

  constructor(connections, chat, socket, deadlines) {
    this.#connections = connections;
    this.#chat = chat;
    this.#deadlines = deadlines;
    this.socket = socket;
    this.#authTimer = setTimeout(() => this.#refuseAuth("auth_timeout"), deadlines.auth);
    socket.on("text", (text) => this.#take(text));
    socket.on("drain", () => this.#catchUp());
  }

  /** Sends what is no event, to somebody who has authenticated and keeps up. */
  send(value) {
    if (this.user && !this.#behind) this.#tell(value);
  }

  #tell(value) {
    for (const frame of hooks.told(value, this)) this.socket.send(frame);
  }

  deliver(event) {
    if (!this.user || this.#behind) return;
    this.#position = event.id;
    const frame = this.#chat.frame(this.user, event, this.rooms);
    if (frame) this.#tell(frame);
    if (this.socket.isBehind) this.#behind = true;
  }

  #catchUp() {
    if (!this.#behind || !this.user) return;
    this.#behind = false;
    this.#replay(this.#position);
    this.#tell({ type: "presence", ...this.#connections.online() });
  }

  #replay(after) {
    const frames = this.#chat.replay(this.user, after, this.rooms);
    this.#position = this.#chat.lastId;
    if (frames === null) this.#tell({ type: "resync", after, last_id: this.#position });
    else for (const frame of frames) this.#tell(frame);
  }

  beat() {
    const now = Date.now();
    if (now - this.socket.heard > this.#deadlines.silence) {
      this.socket.close(1001, "silent");
      this.leave();
    } else if (now - this.#pinged >= this.#deadlines.ping) {
      this.#pinged = now;
      this.socket.ping();
    }
  }

  leave() {
    clearTimeout(this.#authTimer);
    const { user } = this;
    if (!user) return;
    this.user = null;
    user.lastSeen = Date.now();
    if (!this.#connections.isOnline(user)) this.#connections.changed("user_leave", user);
  }

  #take(text) {
    const now = Date.now();
    const tokens = this.#tokens;
    tokens.left = Math.min(FRAME_BURST, tokens.left + ((now - tokens.at) * FRAME_RATE) / 1_000) - 1;
    tokens.at = now;
    if (tokens.left < 0) {
      this.socket.close(1008, "too many frames");
      return this.leave();
    }
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      frame = null;
    }
    const isObject = typeof frame === "object" && frame !== null && !Array.isArray(frame);
    if (isObject) frame = hooks.heard(frame, this);
    if (!this.session) return isObject ? this.#authenticate(frame) : this.#refuseAuth("invalid_json");
    if (!this.user) return;
    try {
      if (!isObject || typeof frame.type !== "string") throw new Refusal("invalid_json", "not an object with a type");
      this.#act(frame);
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      const { code, message, wait } = refusal;
      const nonce = typeof frame?.nonce === "string" && frame.nonce.length <= 128 ? frame.nonce : undefined;
      this.send({ type: "error", code, message, nonce, retry_after: wait });
    }
  }

  #refuseAuth(code, message = code.replaceAll("_", " ")) {
    clearTimeout(this.#authTimer);
    this.#tell({ type: "auth_failed", code, message });
    this.socket.close(1008, code);
  }

  #authenticate({ type, token, last_id: lastId, epoch, rooms }) {
    if (type !== "auth") return this.#refuseAuth("unauthorized");
    const valid = typeof token === "string" && (lastId === undefined || (Number.isSafeInteger(lastId) && lastId >= 0)) &&
      (epoch === undefined || typeof epoch === "string");
    if (!valid) return this.#refuseAuth("invalid_json");
    let session;
    try {
      session = this.#chat.session(token);
    } catch {
      return this.#refuseAuth("unauthorized");
    }
    clearTimeout(this.#authTimer);
    const { user } = session;
    const wasOnline = this.#connections.isOnline(user);
    Object.assign(this, { session, user, rooms: rooms === true });
    const { name: server } = this.#chat.options;
    this.#tell({
      type: "auth_success", username: user.name, last_id: this.#chat.lastId, epoch: this.#chat.epoch,
      ...this.#connections.online(), moderator: user.moderator, server,
    });
    if (!wasOnline) this.#connections.changed("user_join", user);
    this.#position = this.#chat.lastId;
    if (lastId === undefined) return;
    if ((epoch !== undefined && epoch !== this.#chat.epoch) || lastId > this.#chat.lastId) {
      this.#tell({ type: "resync", after: 0, last_id: this.#chat.lastId });
    } else this.#replay(lastId);
  }

  #act(frame) {
    const { type, nonce } = frame;
    switch (type) {
      case "message":
        return this.#acknowledge(nonce, this.#chat.send(this.user, frame));
      case "edit":
        return this.#acknowledge(nonce, this.#chat.edit(this.user, frame));
      case "delete":
        return this.#acknowledge(nonce, this.#chat.delete(this.user, frame));
      case "react":
        return this.#acknowledge(nonce, this.#chat.react(this.user, frame));
      case "read":
        return this.#chat.read(this.user, frame);
      case "typing": {
        const room = this.#chat.rooms.get(frame.room ?? 1);
        return this.#chat.mayRead(this.user, room) ? this.#connections.typing(this.user, room) : undefined;
      }
      case "ping":
        return this.send({ type: "pong", last_id: this.#chat.lastId });
      default:
        throw new Refusal("invalid_json", "no such type");
    }
  }

  #acknowledge(nonce, id) {
    if (typeof nonce === "string") this.send({ type: "ack", nonce, id });
  }
}
