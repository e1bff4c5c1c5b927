// The contract's state and rules, in memory: people, rooms, messages, one order of events, and who may see what.
//
// Everything is done at once on one thread, so "stored" is "in these maps". `commit` is the only place where an event
// gets its id and reaches connections; `mayRead` the only one that says who may read a room.

import { createHash, randomBytes, scryptSync, timingSafeEqual } from "node:crypto";
import { EventEmitter } from "node:events";
import { fold, LIMITS, REACTIONS, Refusal } from "./rules.mjs";
import * as rules from "./rules.mjs";

/** Past these the server says `unavailable`, or forgets the oldest. */
const MESSAGES_MAX = 200_000;
const EVENTS_MAX = 400_000;
const ACCOUNTS_MAX = 10_000;
const ROOMS_MAX = 10_000;
const SESSIONS_MAX = 20_000;
const IMAGES_MAX = 1_000;
const SESSION_MS = 30 * 24 * 3_600_000;

const digest = (text) => createHash("sha256").update(text).digest("hex");
const hash = (password, salt) => scryptSync(password, salt, 32, { N: 1_024 });
const key = (name) => name.toLowerCase();
const sorted = (names) => names.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));

/** Events: `event` (one that has happened), `ended` (a session), `read` (user, room, id). */
export class Chat extends EventEmitter {
  epoch = randomBytes(8).toString("hex");
  lastId = 0;
  users = new Map();
  sessions = new Map();
  rooms = new Map();
  messages = new Map();
  images = new Map();
  invites = new Map();
  /** What has happened, oldest first: `{ type, id, room, … }`. */
  log = [];
  #numbers = { user: 0, session: 0, room: 0, image: 0, invite: 0 };
  #options;

  constructor(options) {
    super();
    this.setMaxListeners(0);
    this.#options = { registration: "open", rooms: "everyone", invites: "moderators", images: true, rate: 10, ...options };
    this.#openRoom({ kind: "open", name: "Lobby", emoji: null, topic: "" });
  }

  // --- accounts ---

  get options() {
    return this.#options;
  }

  /** Whether no person has an account yet: the first one will be a moderator. */
  get isNew() {
    return ![...this.users.values()].some((user) => !user.bot);
  }

  user(name) {
    const user = typeof name === "string" ? this.users.get(key(name)) : undefined;
    return user && !user.deleted ? user : undefined;
  }

  /** Somebody who can be added, written to and mentioned. */
  active(name) {
    const user = this.user(name);
    if (!user || user.disabled) throw new Refusal("not_found");
    return user;
  }

  register(name, password, invite) {
    rules.username(name);
    rules.password(password);
    const invited = this.#invitation(invite);
    if (this.users.has(key(name))) throw new Refusal("username_taken");
    if (this.users.size >= ACCOUNTS_MAX) throw new Refusal("unavailable");
    if (invited) {
      invited.left -= 1;
      invited.users.push(name);
    }
    return this.#addUser(name, { password, moderator: this.isNew });
  }

  #invitation(code) {
    const { registration } = this.#options;
    if (registration === "closed") throw new Refusal("registration_closed");
    if (code === undefined) {
      if (registration === "invite" && !this.isNew) throw new Refusal("registration_closed");
      return null;
    }
    const invited = [...this.invites.values()].find((invite) => invite.digest === digest(code));
    if (!invited || invited.left < 1 || invited.expires_at <= Date.now()) throw new Refusal("invalid_invite");
    return invited;
  }

  addBot(name) {
    const user = this.#addUser(rules.username(name), { bot: true });
    return this.#addSession(user, "bot", Infinity).token;
  }

  #addUser(name, { password = "", moderator = false, bot = false }) {
    const salt = randomBytes(16);
    const user = {
      number: ++this.#numbers.user, name, moderator, bot, salt, hash: hash(password, salt), disabled: false, deleted: false,
      lastSeen: null, since: this.lastId, reads: new Map(), nonces: new Map(), directs: [], tokens: null, pushes: new Map(),
      notify: new Map(),
    };
    this.users.set(key(name), user);
    return user;
  }

  #is(user, password) {
    return timingSafeEqual(hash(password, user.salt), user.hash);
  }

  login(name, password, client) {
    const user = this.user(name);
    if (!user || user.bot || !this.#is(user, password) || user.disabled) throw new Refusal("invalid_credentials");
    return this.#addSession(user, client, Date.now() + SESSION_MS);
  }

  #addSession(user, client, expires_at) {
    if (this.sessions.size >= SESSIONS_MAX) throw new Refusal("unavailable");
    const token = randomBytes(24).toString("base64url");
    const now = Date.now();
    const session = { id: ++this.#numbers.session, user, client, created_at: now, last_used_at: now, expires_at };
    this.sessions.set(digest(token), session);
    return { token, session };
  }

  session(token) {
    const session = this.sessions.get(digest(token));
    if (!session || session.expires_at <= Date.now()) throw new Refusal("unauthorized");
    session.last_used_at = Date.now();
    return session;
  }

  sessionsOf(user) {
    return [...this.sessions.values()].filter((session) => session.user === user);
  }

  end(session) {
    for (const [token, known] of this.sessions) if (known === session) this.sessions.delete(token);
    this.emit("ended", session);
  }

  changePassword(session, password, next) {
    const { user } = session;
    if (!this.#is(user, password)) throw new Refusal("invalid_credentials");
    rules.password(next);
    user.salt = randomBytes(16);
    user.hash = hash(next, user.salt);
    for (const other of this.sessionsOf(user)) if (other !== session) this.end(other);
  }

  deleteAccount(user, password, withMessages) {
    if (!this.#is(user, password)) throw new Refusal("invalid_credentials");
    const moderators = [...this.users.values()].filter((other) => other.moderator && !other.deleted && !other.disabled);
    if (user.moderator && moderators.length === 1) throw new Refusal("forbidden", "the last moderator stays");
    for (const session of this.sessionsOf(user)) this.end(session);
    if (withMessages) this.#deleteAllOf(user, user);
    for (const room of this.rooms.values()) {
      if (!room.members?.has(user)) continue;
      if (room.kind === "private") this.#removeMember(room, user);
      else this.#change(room, { archived: true });
    }
    this.users.delete(key(user.name));
    Object.assign(user, { name: `(deleted ${user.number})`, deleted: true, moderator: false });
    user.nonces.clear();
  }

  ban(moderator, name, withMessages) {
    if (!moderator.moderator) throw new Refusal("forbidden");
    const user = this.user(name);
    if (!user) throw new Refusal("not_found");
    if (user.moderator) throw new Refusal("forbidden", "not a moderator");
    user.disabled = true;
    for (const session of this.sessionsOf(user)) if (!user.bot) this.end(session);
    if (withMessages) this.#deleteAllOf(user, moderator);
  }

  unban(moderator, name) {
    if (!moderator.moderator) throw new Refusal("forbidden");
    const user = this.user(name);
    if (!user) throw new Refusal("not_found");
    user.disabled = false;
  }

  #deleteAllOf(user, by) {
    for (const message of [...this.messages.values()]) {
      if (message.user === user && !message.deleted) this.#erase(message, by);
    }
  }

  // --- invitations ---

  invite(user, uses, expiresIn) {
    if (!user.moderator && this.#options.invites !== "everyone") throw new Refusal("forbidden");
    const within = (value, most) => Number.isSafeInteger(value) && value >= 1 && value <= most;
    if (!within(uses, 1_000) || !within(expiresIn, 365 * 24 * 3_600_000)) throw new Refusal("invalid_request");
    const code = randomBytes(12).toString("base64url");
    const now = Date.now();
    const invite = {
      id: ++this.#numbers.invite, digest: digest(code), uses, left: uses, created_by: user, created_at: now,
      expires_at: now + expiresIn, users: [],
    };
    this.invites.set(invite.id, invite);
    return { id: invite.id, code };
  }

  invitesFor(user) {
    const shown = [...this.invites.values()].filter((invite) => user.moderator || invite.created_by === user);
    return shown.map(({ digest: _, created_by, ...invite }) => ({ ...invite, created_by: created_by.name }));
  }

  revokeInvite(user, id) {
    const invite = this.invites.get(id);
    if (!invite || (!user.moderator && invite.created_by !== user)) throw new Refusal("not_found");
    this.invites.delete(id);
  }

  // --- rooms ---

  mayRead(user, room) {
    return room !== undefined && (room.kind === "open" || room.members.has(user));
  }

  /** The room, if this user may read it; a room they may not and one that there is not are the same. */
  room(user, id) {
    const room = this.rooms.get(id);
    if (!this.mayRead(user, room)) throw new Refusal("not_found");
    return room;
  }

  readable(user) {
    return [...this.rooms.values()].filter((room) => this.mayRead(user, room));
  }

  /** The first event of `room` that is for `user`: all of an open one, what came after joining of a private one's. */
  joined(user, room) {
    return room.kind === "open" ? 0 : room.members.get(user);
  }

  #openRoom({ kind, name, emoji, topic, members = null }) {
    if (this.rooms.size >= ROOMS_MAX) throw new Refusal("unavailable");
    const room = { id: ++this.#numbers.room, kind, name, emoji, topic, members: null, archived: false, changed: 0 };
    this.rooms.set(room.id, room);
    if (members) room.members = new Map(members.map((user) => [user, this.lastId + 1]));
    if (room.id > 1) this.#roomChanged(room, members);
    return room;
  }

  /** A change of `room` that everybody in it hears of; for those of `added` it is the event that brought them in. */
  #roomChanged(room, added = null, removed = null) {
    for (const user of added ?? []) {
      room.members?.set(user, this.lastId + 1);
      user.reads.set(room.id, this.lastId + 1);
    }
    room.changed = this.#commit({ type: "room", room, added, removed });
  }

  #change(room, changes) {
    Object.assign(room, changes);
    this.#roomChanged(room);
  }

  createRoom(user, { name, kind, emoji, topic, members }) {
    if (kind !== "open" && kind !== "private") throw new Refusal("invalid_request", "kind: open or private");
    if (kind === "open" && this.#options.rooms === "moderators" && !user.moderator) throw new Refusal("forbidden");
    const fields = {
      kind, name: rules.label(name, "name", 1, 60), emoji: this.#emoji(emoji),
      topic: topic === undefined || topic === null ? "" : rules.label(topic, "topic", 0, LIMITS.topic),
    };
    if (members !== undefined && (kind === "open" || !Array.isArray(members) || members.length > LIMITS.rooms_members)) {
      throw new Refusal("invalid_request", "members: names, of a private room");
    }
    const people = kind === "private" ? [...new Set([user, ...(members ?? []).map((other) => this.active(other))])] : null;
    if (kind === "open") this.#checkName(fields.name);
    return this.#openRoom({ ...fields, members: people });
  }

  #emoji(emoji) {
    return emoji === undefined || emoji === null ? null : rules.label(emoji, "emoji", 1, LIMITS.emoji);
  }

  #checkName(name, except) {
    const taken = [...this.rooms.values()].some(
      (room) => room !== except && room.kind === "open" && fold(room.name) === fold(name));
    if (taken) throw new Refusal("name_taken");
  }

  direct(user, name) {
    const other = this.active(name);
    const pair = new Set([user, other]);
    for (const room of this.rooms.values()) {
      if (room.kind === "direct" && room.members.size === pair.size && [...pair].every((one) => room.members.has(one))) {
        return { room, made: false };
      }
    }
    const hourAgo = Date.now() - 3_600_000;
    user.directs = user.directs.filter((at) => at > hourAgo);
    if (user.directs.length >= LIMITS.directs_an_hour) {
      throw new Refusal("rate_limited", "20 new ones an hour", { wait: user.directs[0] - hourAgo });
    }
    user.directs.push(Date.now());
    return { room: this.#openRoom({ kind: "direct", name: null, emoji: null, topic: "", members: [...pair] }), made: true };
  }

  patchRoom(user, id, { name, emoji, topic, archived }) {
    const room = this.room(user, id);
    if (room.kind === "direct" || (room.kind === "open" && !user.moderator)) throw new Refusal("forbidden");
    const changes = {};
    if (name !== undefined) changes.name = rules.label(name, "name", 1, 60);
    if (emoji !== undefined) changes.emoji = this.#emoji(emoji);
    if (topic !== undefined) changes.topic = topic === null ? "" : rules.label(topic, "topic", 0, LIMITS.topic);
    if (archived !== undefined) {
      if (typeof archived !== "boolean") throw new Refusal("invalid_request", "archived: true or false");
      if (archived && room.id === 1) throw new Refusal("forbidden", "the lobby stays");
      changes.archived = archived;
    }
    if (room.archived && changes.archived !== false && Object.keys(changes).some((field) => field !== "archived")) {
      throw new Refusal("archived");
    }
    if (room.kind === "open" && changes.name !== undefined) this.#checkName(changes.name, room);
    const differs = Object.entries(changes).some(([field, value]) => room[field] !== value);
    if (differs) this.#change(room, changes);
    return room;
  }

  #membersOf(user, id) {
    const room = this.room(user, id);
    if (room.kind === "open") throw new Refusal("invalid_request", "everybody is in an open room");
    if (room.kind === "direct") throw new Refusal("forbidden");
    return room;
  }

  addMember(user, id, name) {
    const room = this.#membersOf(user, id);
    const added = this.active(name);
    if (!room.members.has(added)) this.#roomChanged(room, [added]);
  }

  removeMember(user, id, name) {
    const room = this.#membersOf(user, id);
    const removed = this.active(name);
    if (room.members.has(removed)) this.#removeMember(room, removed);
  }

  #removeMember(room, user) {
    room.members.delete(user);
    user.reads.delete(room.id);
    if (room.members.size === 0) room.archived = true;
    this.#roomChanged(room, null, user);
  }

  roomFor(user, room) {
    const read = this.readOf(user, room);
    let last = null;
    let unread = 0;
    let mentioned = 0;
    for (const message of this.#newestFirst(room)) {
      last ??= message;
      if (message.id <= read || unread === LIMITS.unread) break;
      if (message.user === user) continue;
      unread += 1;
      if (this.#names(message, user)) mentioned += 1;
    }
    const { id, kind, name, emoji, topic, archived } = room;
    const shown = { id, kind, name, emoji, topic, members: null, archived, last: null, read, unread, mentioned };
    if (last) shown.last = this.messageFor(user, last);
    if (room.members) {
      shown.members = sorted([...room.members.keys()].map((member) => member.name)).slice(0, LIMITS.rooms_members);
      shown.member_count = room.members.size;
    }
    return shown;
  }

  #names(message, user) {
    return message.mentions.includes("all") || message.mentions.some((name) => key(name) === key(user.name));
  }

  // --- messages ---

  /** Messages of `room` that are there, newest first. */
  * #newestFirst(room) {
    const all = [...this.messages.values()];
    for (let at = all.length - 1; at >= 0; at--) if (all[at].room === room && !all[at].deleted) yield all[at];
  }

  of(room) {
    return [...this.#newestFirst(room)].reverse();
  }

  /** What a nonce was first answered with, or undefined. */
  known(user, nonce) {
    const known = nonce === undefined ? undefined : user.nonces.get(nonce);
    return known && known.at > Date.now() - LIMITS.nonce_ms ? known.id : undefined;
  }

  #remember(user, nonce, id) {
    if (nonce !== undefined) user.nonces.set(nonce, { id, at: Date.now() });
    return id;
  }

  /** Takes a token of the user's rate, or says how long to wait: ten a second, three seconds' worth at once. */
  #spend(user) {
    const { rate } = this.#options;
    const now = Date.now();
    const bucket = (user.tokens ??= { left: 3 * rate, at: now });
    bucket.left = Math.min(3 * rate, bucket.left + ((now - bucket.at) * rate) / 1_000);
    bucket.at = now;
    if (bucket.left < 1) throw new Refusal("rate_limited", undefined, { wait: Math.ceil(((1 - bucket.left) * 1_000) / rate) });
    bucket.left -= 1;
  }

  send(user, { content, room = 1, reply_to, image, alt, nonce }) {
    rules.nonce(nonce);
    const first = this.known(user, nonce);
    if (first !== undefined) return first;
    const text = rules.content(content, { mayBeEmpty: image !== undefined && image !== null });
    const target = this.room(user, rules.id(room, "room"));
    if (target.archived) throw new Refusal("archived");
    const quoted = this.#quoted(target, reply_to);
    const picture = this.#pictureOf(user, image, alt);
    if (this.messages.size >= MESSAGES_MAX) throw new Refusal("no_space");
    this.#spend(user);
    const message = {
      id: this.lastId + 1, room: target, user, content: text, created_at: Date.now(), edited_at: null, quoted,
      mentions: this.#mentioned(user, target, text), image: picture, reactions: new Map(), deleted: false,
    };
    if (picture) picture.message = message;
    this.messages.set(message.id, message);
    this.#remember(user, nonce, message.id);
    return this.#commit({ type: "message", room: target, message });
  }

  #quoted(room, id) {
    if (id === undefined || id === null) return null;
    const quoted = this.messages.get(rules.id(id, "reply_to"));
    if (!quoted || quoted.room !== room) throw new Refusal("not_found");
    if (quoted.deleted) throw new Refusal("gone");
    return quoted;
  }

  #pictureOf(user, id, alt) {
    if (id === undefined || id === null) return null;
    if (alt !== undefined && alt !== null && (typeof alt !== "string" || rules.characters(alt) > LIMITS.alt)) {
      throw new Refusal("invalid_message", "alt: up to 1,000 characters");
    }
    const picture = this.images.get(rules.id(id, "image"));
    const usable = picture && picture.owner === user && !picture.message && picture.at > Date.now() - LIMITS.image_ms;
    if (!usable) throw new Refusal("not_found");
    picture.alt = alt ?? "";
    return picture;
  }

  #mentioned(user, room, text) {
    return rules.mentions(text, (word) => {
      if (word.toLowerCase() === "all") return user.moderator || room.kind === "private" ? "all" : undefined;
      const named = this.user(word);
      return named && !named.disabled && this.mayRead(named, room) ? named.name : undefined;
    });
  }

  /** The message that something is to be done to, by the order of refusals. */
  #target(user, id) {
    const message = this.messages.get(rules.id(id, "message"));
    if (!message || !this.mayRead(user, message.room)) throw new Refusal("not_found");
    if (message.deleted) throw new Refusal("gone");
    return message;
  }

  edit(user, { message: id, content, nonce }) {
    rules.nonce(nonce);
    const first = this.known(user, nonce);
    if (first !== undefined) return first;
    const message = this.#target(user, id);
    if (message.user !== user) throw new Refusal("forbidden");
    if (message.room.archived) throw new Refusal("archived");
    if (message.created_at < Date.now() - LIMITS.edit_ms) throw new Refusal("too_old");
    const text = rules.content(content, { mayBeEmpty: message.image !== null });
    this.#spend(user);
    message.content = text;
    message.edited_at = Date.now();
    return this.#remember(user, nonce, this.#commit({ type: "edit", room: message.room, message }));
  }

  delete(user, { message: id, nonce }) {
    rules.nonce(nonce);
    const first = this.known(user, nonce);
    if (first !== undefined) return first;
    const message = this.#target(user, id);
    const allowed = message.user === user || (user.moderator && message.room.kind === "open");
    if (!allowed) throw new Refusal("forbidden");
    return this.#remember(user, nonce, this.#erase(message, user));
  }

  #erase(message, by) {
    Object.assign(message, { deleted: true, content: "", mentions: [], quoted: null });
    message.reactions.clear();
    if (message.image) this.images.delete(message.image.id);
    message.image = null;
    return this.#commit({ type: "delete", room: message.room, message, by: by.name });
  }

  react(user, { message: id, emoji, on, nonce }) {
    rules.nonce(nonce);
    const first = this.known(user, nonce);
    if (first !== undefined) return first;
    if (!REACTIONS.includes(emoji) || typeof on !== "boolean") throw new Refusal("invalid_message", "no such reaction");
    const message = this.#target(user, id);
    if (message.room.archived) throw new Refusal("archived");
    const reactions = message.reactions.get(emoji) ?? new Map();
    const now = reactions.get(user) ?? { on: false, id: message.id };
    if (now.on === on) return this.#remember(user, nonce, now.id);
    this.#spend(user);
    // Set again, not changed, so that who reacted first stands first.
    reactions.delete(user);
    reactions.set(user, { on, id: this.lastId + 1 });
    message.reactions.set(emoji, reactions);
    return this.#remember(user, nonce, this.#commit({ type: "react", room: message.room, message, user, emoji, on }));
  }

  messageFor(user, message, { live = false } = {}) {
    const shown = {
      id: message.id, room: message.room.id, username: message.user.name, content: message.content,
      created_at: message.created_at,
    };
    if (message.edited_at) shown.edited_at = message.edited_at;
    if (message.quoted) shown.reply_to = this.#quote(message.quoted);
    if (message.mentions.length > 0) shown.mentions = message.mentions;
    if (message.user.bot) shown.bot = true;
    if (message.image) {
      const { id, type, width, height, alt } = message.image;
      shown.image = { id, type, width, height, alt };
    }
    const reactions = live ? [] : this.#reactions(user, message);
    if (reactions.length > 0) shown.reactions = reactions;
    return shown;
  }

  #quote({ id, user, content, deleted }) {
    return deleted ? { id } : { id, username: user.name, content: [...content].slice(0, LIMITS.quote).join("") };
  }

  #reactions(reader, message) {
    const shown = [];
    for (const [emoji, reactions] of message.reactions) {
      const users = [...reactions].filter(([, { on }]) => on).map(([user]) => user);
      if (users.length === 0) continue;
      shown.push({
        emoji, count: users.length, mine: users.includes(reader), names: users.slice(0, 10).map((user) => user.name),
      });
    }
    return shown;
  }

  search(user, { q, room, from, before, limit }) {
    const text = fold(rules.trim(q));
    if (rules.characters(text) < 1 || rules.characters(text) > LIMITS.search) throw new Refusal("invalid_request", "q");
    if (room !== undefined) this.room(user, room);
    const found = [];
    const all = [...this.messages.values()];
    for (let at = all.length - 1; at >= 0; at--) {
      const message = all[at];
      if (before !== undefined && message.id >= before) continue;
      if (message.deleted || !this.mayRead(user, message.room)) continue;
      if (room !== undefined && message.room.id !== room) continue;
      if (from !== undefined && key(message.user.name) !== key(from)) continue;
      if (!fold(message.content).includes(text)) continue;
      if (found.length === limit) return { messages: found, before: found.at(-1).id };
      found.push(this.messageFor(user, message));
    }
    return { messages: found, before: null };
  }

  // --- read positions ---

  readOf(user, room) {
    return user.reads.get(room.id) ?? (room.kind === "open" ? user.since : this.joined(user, room));
  }

  read(user, { room: roomId, id }) {
    const room = this.rooms.get(roomId);
    if (!this.mayRead(user, room)) return;
    rules.id(id, "id", "invalid_message");
    const newest = this.#newestFirst(room).next().value?.id ?? 0;
    const read = Math.min(id, Math.max(newest, this.readOf(user, room)));
    if (read <= this.readOf(user, room)) return;
    user.reads.set(room.id, read);
    this.emit("read", user, room.id, read);
  }

  // --- pictures ---

  addImage(owner, bytes) {
    const picture = rules.picture(bytes);
    for (const [id, image] of this.images) {
      if (!image.message && image.at <= Date.now() - LIMITS.image_ms) this.images.delete(id);
    }
    if (this.images.size >= IMAGES_MAX) throw new Refusal("no_space");
    const image = { id: ++this.#numbers.image, owner, at: Date.now(), message: null, alt: "", ...picture };
    this.images.set(image.id, image);
    return { id: image.id, type: image.type, width: image.width, height: image.height };
  }

  image(user, id) {
    const image = this.images.get(id);
    const visible = image && (image.message ? this.mayRead(user, image.message.room) : image.owner === user);
    if (!visible) throw new Refusal("not_found");
    return image;
  }

  // --- events ---

  #commit(event) {
    event.id = ++this.lastId;
    this.log.push(event);
    if (this.log.length > EVENTS_MAX) this.log.splice(0, EVENTS_MAX / 2);
    this.emit("event", event);
    return event.id;
  }

  /** The frame that `event` is for `user` as it happens, or null if it is not for them. */
  frame(user, event, rooms) {
    if (event.type === "room") return rooms ? this.#roomFrame(user, event) : null;
    if (!this.mayRead(user, event.room) || event.id < this.joined(user, event.room)) return null;
    if (!rooms && (event.room.id !== 1 || event.type === "react")) return null;
    return this.#messageFrame(user, event, { live: true });
  }

  #roomFrame(user, { id, room, removed }) {
    if (user === removed) return { type: "room_gone", id, room: room.id };
    return this.mayRead(user, room) ? { type: "room", id, room: this.roomFor(user, room) } : null;
  }

  #messageFrame(user, { type, id, room, message, by, user: reacting, emoji, on }, how) {
    switch (type) {
      case "message":
        return { type, ...this.messageFor(user, message, how) };
      case "edit": {
        const frame = { type, id, room: room.id, message: message.id, content: message.content, edited_at: message.edited_at };
        return message.mentions.length > 0 ? { ...frame, mentions: message.mentions } : frame;
      }
      case "delete":
        return { type, id, room: room.id, message: message.id, by };
      case "react":
        return { type, id, room: room.id, message: message.id, username: reacting.name, emoji, on };
    }
  }

  /** What `user` has missed after `after`, by the rules of a replay; null if it is more than may be replayed. */
  replay(user, after, rooms) {
    const missed = this.log.slice(this.#firstAfter(after));
    const lastOf = new Map();
    for (const event of missed) lastOf.set(this.#what(event), event);
    const frames = [];
    for (const event of missed) {
      const frame = this.#replayed(user, event, { after, rooms, lastOf });
      if (frame) frames.push(frame);
      if (frames.length > LIMITS.replay) return null;
    }
    return frames;
  }

  #firstAfter(after) {
    let low = 0;
    let high = this.log.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.log[middle].id <= after) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** What an event is about: of two events about the same only the later one is replayed. */
  #what({ type, room, message, user, emoji, removed }) {
    if (type === "room") return removed ? `gone ${room.id} ${removed.number}` : `room ${room.id}`;
    return type === "react" ? `react ${message.id} ${user.number} ${emoji}` : `${type} ${message.id}`;
  }

  #replayed(user, event, { after, rooms, lastOf }) {
    const { type, id, room, message } = event;
    const isLast = lastOf.get(this.#what(event)) === event;
    if (type === "room") {
      if (!rooms) return null;
      if (!this.mayRead(user, room)) return event.removed === user && isLast ? { type: "room_gone", id, room: room.id } : null;
      const joined = this.joined(user, room);
      const shown = joined > after ? joined : room.changed;
      return id === shown ? { type, id, room: this.roomFor(user, room) } : null;
    }
    if (!this.mayRead(user, room) || (!rooms && (room.id !== 1 || type === "react"))) return null;
    const from = Math.max(after, this.joined(user, room));
    if (id <= from) return null;
    const wanted = type === "delete" || (!message.deleted && (type === "message" || (message.id <= from && isLast)));
    return wanted ? this.#messageFrame(user, event, {}) : null;
  }

  // --- people ---

  people(prefix, isOnline) {
    const wanted = key(prefix);
    const shown = [...this.users.values()].filter(
      (user) => !user.deleted && !user.disabled && key(user.name).startsWith(wanted));
    shown.sort((a, b) => (key(a.name) < key(b.name) ? -1 : 1));
    return shown.slice(0, LIMITS.users_listed).map((user) => ({
      username: user.name, bot: user.bot, moderator: user.moderator, online: isOnline(user), last_seen: user.lastSeen,
    }));
  }

  exportOf(user) {
    const own = [...this.messages.values()].filter((message) => message.user === user && !message.deleted);
    return own.map(({ id, room, content, created_at, edited_at }) =>
      ({ id, room: room.id, content, created_at, ...(edited_at ? { edited_at } : {}) }));
  }

  notify(user, roomId, what) {
    const room = this.room(user, roomId);
    if (!["all", "mentions", "nothing"].includes(what)) throw new Refusal("invalid_request");
    user.notify.set(room.id, what);
  }

  page(user, room, { limit, before, after, around }) {
    const all = this.of(room);
    let from, to;
    if (around !== undefined) {
      const half = Math.floor(limit / 2);
      const middle = all.findIndex((message) => message.id >= around);
      const at = middle === -1 ? all.length : middle;
      from = Math.max(0, at - half);
      to = Math.min(all.length, from + limit);
    } else if (after !== undefined) {
      const first = all.findIndex((message) => message.id > after);
      from = first === -1 ? all.length : first;
      to = Math.min(all.length, from + limit);
    } else {
      const first = before === undefined ? -1 : all.findIndex((message) => message.id >= before);
      to = first === -1 ? all.length : first;
      from = Math.max(0, to - limit);
    }
    const messages = all.slice(from, to).map((message) => this.messageFor(user, message));
    const page = { messages, has_more: after !== undefined ? to < all.length : from > 0 };
    return around === undefined ? page : { ...page, has_newer: to < all.length };
  }
}
