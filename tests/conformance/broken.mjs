// How each row of the conformance suite is broken, by its name: the server then fails that row, and is otherwise what it
// was as far as one change at its edges allows.

import { hooks } from "./hooks.mjs";
import { LIMITS, Refusal } from "./rules.mjs";

/** Puts the break of the row `name` in place. */
export function breakRow(name) {
  if (!Object.hasOwn(BREAKS, name)) throw new Error(`no row ${name} that can be broken`);
  Object.assign(hooks, BREAKS[name]);
}

// --- kinds of breaks ---

/** `change` gets the answers to `METHOD /path`, and to what is below it; what it returns, if anything, takes their place. */
const answer = (route, change) => ({
  answered(request, given) {
    const [method, path] = route.split(" ");
    const at = request.url.split("?")[0];
    return request.method === method && (at === path || at.startsWith(`${path}/`)) ? change(given, request) ?? given : given;
  },
});

/** Answers with the status `from` get `to`. */
const status = (from, to) => ({ answered: (_, given) => (given.status === from ? { ...given, status: to } : given) });

/** `change` gets the body of each page, search, list of rooms… that is answered with 200 or 201. */
const body = (route, change) => answer(route, (given) => (given.status < 300 ? void change(given.body) : undefined));
const eachMessage = (change) => body("GET /messages", ({ messages }) => messages.forEach(change));
const eachRoom = (change) => body("GET /rooms", ({ rooms }) => rooms.forEach(change));

const refused = (code) => {
  const { status: is, message } = new Refusal(code);
  return { status: is, body: { error: { code, message } }, headers: {} };
};

/** `change` gets the frames of `type`; what it returns, if anything, is sent in their place. */
const frame = (type, change) => ({
  told: (given, connection) => (given.type === type ? change(given, connection) ?? [given] : [given]),
});
const NOTHING = [];
const silent = (type) => frame(type, () => NOTHING);
const without = (type, field) => frame(type, (given) => [{ ...given, [field]: undefined }]);
const errorCode = (code) => frame("error", (given) => [{ ...given, code }]);

/** `change` gets what clients send, of `type`. */
const heard = (type, change) => {
  let chat;
  return {
    setup: (itself) => void (chat = itself),
    heard: (given, connection) => (given.type === type ? change({ ...given }, connection, chat) : given),
  };
};

/** The method `name` of the chat becomes `make(what it was, the chat)`. */
const method = (name, make) => ({
  setup(chat) {
    const was = chat[name].bind(chat);
    chat[name] = make(was, chat);
  },
});
const setup = (change) => ({ setup: change });
const limit = (name, value) => setup(() => void (LIMITS[name] = value));
const closing = (from, to) => ({ closing: (code) => (code === from ? to : code) });
const asked = (change) => ({ asked: change });
/** `change` gets the frames of each replay. */
const replayed = (change) => method("replay", (was) => (user, after, rooms) => {
  const frames = was(user, after, rooms);
  return frames && change(frames, after);
});
const everybodyReads = method("mayRead", (was) => (user, room) => room !== undefined && (was(user, room) || true));
const nothingEnds = method("end", () => () => {});
const nothingKnown = method("known", () => () => undefined);
const noKey = asked(({ headers }) => void delete headers["idempotency-key"]);
const frozenQuotes = setup((chat) => {
  const show = chat.messageFor.bind(chat);
  chat.messageFor = (user, message, how) => {
    const shown = show(user, message, how);
    if (shown.reply_to) shown.reply_to = message.frozen ??= shown.reply_to;
    return shown;
  };
  chat.on("event", ({ type, message }) => type === "message" && chat.messageFor(message.user, message));
});
const undeleted = method("delete", (was, chat) => (user, what) => {
  const message = chat.messages.get(what.message);
  const { content, image } = message ?? {};
  const id = was(user, what);
  Object.assign(message, { content, deleted: false });
  if (image) chat.images.set(image.id, image);
  return id;
});
const originals = method("addImage", (was, chat) => (owner, bytes) => {
  const made = was(owner, bytes);
  chat.images.get(made.id).bytes = bytes;
  return made;
});
/** Messages get the mentions that `find` makes of their text. */
const mentionsBy = (find) => method("send", (was, chat) => (user, message) => {
  const id = was(user, message);
  const stored = chat.messages.get(id);
  stored.mentions = find(stored.content, chat).filter((name) => name !== undefined);
  return id;
});

const http = {
  "healthz": body("GET /healthz", (health) => void (health.status = "fine")),
  "metrics-elsewhere": answer("GET /metrics", () => ({ status: 200, body: "up 1\n", headers: {} })),
  "web-client": answer("GET /", ({ headers }) => void (headers["Content-Type"] = "text/plain")),
  "not-found": status(404, 400),
  "method-not-allowed": { answered: (_, given) => void delete given.headers.Allow ?? given },
  "payload-too-large": status(413, 400),
  "media-type": status(415, 400),
  "uri-too-long": status(414, 400),
  "head-too-large": status(431, 400),
  "no-http": status(400, 422),
  "upgrade-required": status(426, 400),
  "forbidden-origin": status(403, 400),
  "own-origin": { answered: ({ headers }, given) => (headers.origin ? refused("forbidden_origin") : given) },
  "body-not-utf8": status(400, 422),
  "unknown-fields": answer("POST /register", (given, { object }) => (object.favourite ? refused("invalid_json") : given)),
  "slow-body": status(408, 400),
};

const accounts = {
  "register": body("POST /register", (account) => void (account.username = "somebody")),
  "register-json": status(400, 422),
  "username-rules": status(422, 400),
  "username-all": status(422, 201),
  "password-rules": status(422, 400),
  "username-taken": status(409, 422),
  "invalid-invite": status(403, 400),
  "registration-closed": status(403, 400),
  "login": body("POST /login", (given) => void (given.expires_at = Math.floor(given.expires_at / 1_000))),
  "invalid-credentials": method("login", (was, chat) => (name, ...more) => {
    if (!chat.user(name)) throw new Refusal("invalid_credentials", "nobody has this name");
    return was(name, ...more);
  }),
  "logout": nothingEnds,
  "logout-socket": method("emit", (was) => (type, ...what) => (type === "ended" ? false : was(type, ...what))),
  "logout-other": method("end", (was, chat) => (session) => chat.sessionsOf(session.user).forEach(was)),
  "unauthorized": answer("GET /images", () => refused("not_found")),
  "first-moderator": frame("auth_success", (given) => [{ ...given, moderator: true }]),
  "about": body("GET /about", (about) => void delete about.reactions),
};

const session = {
  "password": method("changePassword", () => () => {}),
  "password-sessions": method("changePassword", (was, chat) => (current, ...more) => {
    const { end } = chat;
    chat.end = () => {};
    was(current, ...more);
    chat.end = end;
  }),
  "password-wrong": status(401, 400),
  "sessions": body("GET /sessions", ({ sessions }) => sessions.forEach((one) => (one.current = false))),
  "session-end": nothingEnds,
  "session-end-current": nothingEnds,
  "sessions-end": nothingEnds,
  "session-foreign": status(404, 204),
  "account-delete": method("deleteAccount", () => () => {}),
  "account-delete-messages": method("deleteAccount", (was) => (user, password) => was(user, password, false)),
  "account-delete-wrong": status(401, 400),
  "account-delete-direct": method("deleteAccount", (was, chat) => (...what) => {
    was(...what);
    for (const room of chat.rooms.values()) room.archived = false;
  }),
  "account-delete-private": method("deleteAccount", (was, chat) => (user, ...more) => {
    const rooms = chat.readable(user).filter(({ kind }) => kind === "private");
    was(user, ...more);
    for (const room of rooms) room.members.set(user, chat.lastId);
  }),
  "account-last-moderator": status(403, 400),
  "export": method("exportOf", (was, chat) => () => [...chat.users.values()].flatMap(was)),
  "invite-create": method("invite", (was) => (user, _, expiresIn) => was(user, 2, expiresIn)),
  "invite-list": body("GET /invites", ({ invites }) => invites.forEach((one) => (one.left = one.uses))),
  "invite-uses": method("register", (was, chat) => (...what) => {
    for (const invite of chat.invites.values()) invite.left = 9;
    return was(...what);
  }),
  "invite-delete": method("revokeInvite", () => () => {}),
  "invite-forbidden": status(403, 400),
  "invite-foreign": method("revokeInvite", (_, chat) => (_user, id) => void chat.invites.delete(id)),
  "ban": method("ban", () => () => {}),
  "ban-messages": method("ban", (was) => (moderator, name) => was(moderator, name, false)),
  "ban-forbidden": status(403, 400),
  "unban": method("unban", () => () => {}),
  "bot-message": without("message", "bot"),
  "bot-absent": frame("auth_success", (given, { user }) => (user.bot ? [{ ...given, users: [user.name] }] : undefined)),
  "bot-forbidden": status(403, 400),
};

const socket = {
  "auth-success": without("auth_success", "users"),
  "auth-server": without("auth_success", "server"),
  "auth-epoch": frame("auth_success", (given, { user }) => [{ ...given, epoch: user.name }]),
  "auth-first": frame("auth_failed", (given) => [{ ...given, code: "invalid_json" }]),
  "auth-unauthorized": closing(1008, 1000),
  "auth-json": frame("auth_failed", (given) => [{ ...given, code: "unauthorized" }]),
  "join": frame("user_join", (given, { user }) => (user.name === given.username ? NOTHING : undefined)),
  "join-once": setup((_, connections) => void (connections.isOnline = () => false)),
  "leave": silent("user_leave"),
  "leave-once": setup((_, connections) => void (connections.isOnline = () => false)),
  "ping": silent("pong"),
  "pong-last-id": without("pong", "last_id"),
  "protocol-ping": { written: (opcode, payload) => (opcode === 0xa ? Buffer.alloc(0) : payload) },
  "fragments": { continues: () => false },
  "close-handshake": closing(1000, 1001),
  "close-1009": closing(1009, 1000),
  "close-1007": closing(1007, 1000),
  "close-1003": closing(1003, 1000),
  "close-1002-mask": closing(1002, 1000),
  "close-1002-reserved": closing(1002, 1000),
  "close-1002-continuation": closing(1002, 1000),
  "close-1008-abuse": closing(1008, 1000),
  "frame-json": errorCode("invalid_message"),
  "frame-type": errorCode("invalid_message"),
  "frame-fields": heard("message", (given) => (given.colour ? { ...given, type: "unknown" } : given)),
  "auth-timeout": frame("auth_failed", (given) => [{ ...given, code: "unauthorized" }]),
  "server-pings": { written: (opcode, payload) => (opcode === 0x9 ? null : payload) },
  "dead-peer": closing(1001, 1000),
};

const talk = {
  "message": without("message", "username"),
  "message-trim": method("send", (was, chat) => (user, message) => {
    const id = was(user, message);
    chat.messages.get(id).content = message.content;
    return id;
  }),
  "message-blank": errorCode("invalid_json"),
  "message-long": heard("message", (given) => ({ ...given, content: given.content.slice(0, 4_000) })),
  "message-control": heard("message", (given) => ({ ...given, content: given.content.replace(/[\r\x7f]/g, " ") })),
  "message-fields": errorCode("invalid_json"),
  "nonce-rules": errorCode("invalid_json"),
  "ack": frame("ack", (given) => [{ ...given, id: given.id - 1 }]),
  "ack-none": frame("message", (given) => [given, { type: "ack", nonce: "", id: given.id }]),
  "error-nonce": without("error", "nonce"),
  "stored-before-shown": body("GET /messages", (page) => void page.messages.pop()),
  "one-order": frame("message", (given) => [given, given]),
  "send-once": nothingKnown,
  "nonce-per-user": method("known", (_, chat) => (_user, nonce) =>
    [...chat.users.values()].map(({ nonces }) => nonces.get(nonce)?.id).find((id) => id !== undefined)),
  // What comes over HTTP has no type.
  "nonce-http": method("send", (was) => (user, given) => was(user, given.type ? given : { ...given, nonce: undefined })),
  "rate": without("error", "retry_after"),
  "rate-nonce": nothingKnown,
  "typing": frame("typing", (given) => [given, given]),
  "typing-room": without("typing", "room"),
  "messages-newest": body("GET /messages", (page) => void (page.has_more = true)),
  "messages-before": method("page", (was) => (user, room, range) =>
    was(user, room, range.before ? { ...range, before: range.before + 1 } : range)),
  "messages-after": method("page", (was) => (user, room, range) =>
    was(user, room, range.after ? { ...range, after: range.after - 1 } : range)),
  "messages-limit": status(400, 422),
  "messages-query": status(400, 422),
  "messages-two": status(400, 422),
  "messages-around": body("GET /messages", (page) => void delete page.has_newer),
  "messages-around-none": method("page", (was, chat) => (user, room, range) => {
    if (range.around && chat.messages.get(range.around)?.deleted !== false) throw new Refusal("not_found");
    return was(user, room, range);
  }),
  "messages-chunked": answer("GET /messages", (given) =>
    void (given.headers["Content-Length"] = Buffer.byteLength(JSON.stringify(given.body)))),
  "post": answer("POST /messages", (given) => ({ ...given, status: 200 })),
  "post-invalid": status(422, 400),
  "post-text": answer("POST /messages", () => refused("unsupported_media_type")),
  "post-form": method("send", (was) => (user, given) => was(user, { ...given, content: given.content.replaceAll("+", " ") })),
  "post-key": noKey,
  "post-key-differs": noKey,
  "post-room-differs": asked((request) => void (request.url = request.url.replace(/^(.messages)[?]room=\d+$/, "$1"))),
};

const resume = {
  "resume": replayed((frames) => frames.slice(1)),
  "resume-epoch": heard("auth", (given) => ({ ...given, epoch: given.epoch && "another" })),
  "resume-none": heard("auth", (given, _, chat) => ({ ...given, last_id: given.last_id ?? chat.lastId - 1 })),
  "resync-epoch": heard("auth", (given) => ({ ...given, epoch: undefined })),
  "resync-ahead": heard("auth", (given, _, chat) => ({ ...given, last_id: given.last_id && Math.min(given.last_id, chat.lastId) })),
  "resync-far": limit("replay", Infinity),
  "replay-counts-own": method("replay", (was, chat) => (user, after, rooms) =>
    (chat.lastId - after > 1_000 ? null : was(user, after, rooms))),
  "slow-reader": replayed((frames) => frames.slice(1)),
};

const rooms = {
  "lobby": eachRoom((room) => (room.kind = "private")),
  "room-shape": body("POST /rooms", (room) => void delete room.member_count),
  "room-open": silent("room"),
  "room-private": method("frame", (was, chat) => (user, event, all) =>
    (event.type === "room" ? { type: "room", id: event.id, room: chat.roomFor(user, event.room) } : was(user, event, all))),
  "room-name": status(400, 422),
  "room-name-taken": status(409, 400),
  "room-name-private": method("createRoom", (was, chat) => (user, given) => {
    if ([...chat.rooms.values()].some(({ name }) => name === given.name)) throw new Refusal("name_taken");
    return was(user, given);
  }),
  "room-invalid": status(400, 422),
  "room-message": without("message", "room"),
  "room-hidden": method("room", (was, chat) => (user, id) => {
    if (chat.rooms.has(id) && !chat.mayRead(user, chat.rooms.get(id))) throw new Refusal("forbidden");
    return was(user, id);
  }),
  "room-hidden-message": method("edit", (was, chat) => (user, given) => {
    if (chat.messages.get(given.message)?.deleted) throw new Refusal("gone");
    return was(user, given);
  }),
  "room-moderator": method("mayRead", (was) => (user, room) => (room !== undefined && user.moderator) || was(user, room)),
  "patch-open": body("PATCH /rooms", (room) => void (room.topic = "")),
  "patch-open-forbidden": status(403, 400),
  "patch-private": method("patchRoom", (was, chat) => (user, id, changes) => {
    if (!user.moderator) throw new Refusal("forbidden");
    return was(user, id, changes);
  }),
  "patch-direct": status(403, 400),
  "patch-lobby-archive": status(403, 400),
  "archived-write": method("send", (was, chat) => (user, given) => {
    const room = chat.rooms.get(given.room);
    if (room) room.archived = false;
    return was(user, given);
  }),
  "archived-rest": method("delete", (was, chat) => (user, given) => {
    if (chat.messages.get(given.message).room.archived) throw new Refusal("archived");
    return was(user, given);
  }),
  "archived-back": method("patchRoom", (was, chat) => (user, id, changes) => {
    if (chat.rooms.get(id).archived) throw new Refusal("archived");
    return was(user, id, changes);
  }),
  "archived-name": method("patchRoom", (was, chat) => (user, id, changes) =>
    was(user, id, changes.archived ? { ...changes, name: `archived ${id}` } : changes)),
  "member-add": method("addMember", (_, chat) => (_user, id, name) =>
    void chat.rooms.get(id).members.set(chat.user(name), chat.lastId)),
  "member-add-again": method("addMember", (was, chat) => (user, id, name) => {
    if (chat.rooms.get(id).members.has(chat.user(name))) chat.removeMember(user, id, name);
    was(user, id, name);
  }),
  "member-remove": silent("room_gone"),
  "member-remove-again": method("removeMember", (was, chat) => (user, id, name) => {
    if (!chat.rooms.get(id).members.has(chat.user(name))) chat.addMember(user, id, name);
    was(user, id, name);
  }),
  "member-leave": method("removeMember", (was) => (user, id, name) => {
    if (user.name === name) throw new Refusal("forbidden");
    was(user, id, name);
  }),
  "member-open": status(400, 403),
  "member-direct": status(403, 400),
  "member-unknown": status(404, 400),
  "member-disabled": method("active", (_, chat) => (name) => chat.user(name)),
  "removed": method("frame", (was, chat) => (user, event, all) =>
    was(user, event, all) ?? (event.type === "message" ? { type: "message", ...chat.messageFor(user, event.message) } : null)),
  "direct": method("direct", (was) => (...what) => ({ ...was(...what), made: true })),
  "direct-heard": frame("room", ({ room }) => (room.kind === "direct" ? NOTHING : undefined)),
  "direct-alone": method("direct", (was) => (user, name) => {
    if (user.name === name) throw new Refusal("invalid_request");
    return was(user, name);
  }),
  "direct-unknown": status(404, 400),
  "direct-rate": limit("directs_an_hour", Infinity),
  "judged-by-room": method("edit", (was, chat) => (user, given) => {
    const message = chat.messages.get(given.message);
    return was(chat.mayRead(user, chat.rooms.get(given.room)) ? message.user : user, given);
  }),
  "first-edition": heard("auth", (given) => ({ ...given, rooms: true })),
  "first-edition-send": heard("message", (given, { rooms: all }) => (all ? given : { ...given, room: 1 })),
};

const changes = {
  "edit": frame("edit", (given) => [{ ...given, content: "" }]),
  "edit-http": body("PATCH /messages", (given) => void (given.id -= 1)),
  "edit-shown": eachMessage((message) => void delete message.edited_at),
  "edit-invalid": status(422, 400),
  "edit-forbidden": method("edit", (was, chat) => (_, given) => was(chat.messages.get(given.message).user, given)),
  "edit-unknown": status(404, 410),
  "edit-gone": status(410, 404),
  "delete": without("delete", "by"),
  "delete-http": body("DELETE /messages", (given) => void (given.id -= 1)),
  "delete-shown": undeleted,
  "delete-replayed": undeleted,
  "delete-moderator": method("delete", (was, chat) => (user, given) => {
    if (chat.messages.get(given.message).user !== user) throw new Refusal("forbidden");
    return was(user, given);
  }),
  "delete-forbidden": method("delete", (was, chat) => (_, given) => was(chat.messages.get(given.message).user, given)),
  "delete-gone": status(410, 404),
  "refusal-order": method("edit", (was, chat) => (user, given) => {
    if (chat.messages.get(given.message).user !== user) throw new Refusal("forbidden");
    return was(user, given);
  }),
  "react": without("react", "username"),
  "react-shown": eachMessage((message) => message.reactions?.forEach((one) => (one.mine = true))),
  "react-unknown": errorCode("invalid_json"),
  "react-same": method("react", (was) => (user, given) => {
    was(user, { ...given, on: !given.on, nonce: undefined });
    return was(user, given);
  }),
  "react-gone": errorCode("not_found"),
  "react-live": frame("message", (given) => [{ ...given, reactions: [] }]),
  "quote": without("message", "reply_to"),
  "quote-cut": limit("quote", Infinity),
  "quote-current": frozenQuotes,
  "quote-deleted": frozenQuotes,
  "quote-gone": status(410, 404),
  "quote-elsewhere": status(404, 400),
  "nonce-any": nothingKnown,
  "nonce-deleted": method("known", (was, chat) => (user, nonce) => {
    const id = was(user, nonce);
    return chat.messages.get(id)?.deleted ? undefined : id;
  }),
  "nonce-patch": noKey,
};

const mentions = {
  "mention": without("message", "mentions"),
  "mention-start": mentionsBy((text, chat) => [...text.matchAll(/@([\w.-]*\w)/g)].map(([, name]) => chat.user(name)?.name)),
  "mention-end": mentionsBy((text, chat) =>
    [...text.matchAll(/(?<![\w./@])@([\w.-]+)/g)].map(([, name]) => chat.user(name)?.name)),
  "mention-readers": everybodyReads,
  "mention-max": limit("mentions", Infinity),
  "mention-all": mentionsBy((text) => (/@all\b/i.test(text) ? ["all"] : [])),
  "mention-edit": without("edit", "mentions"),
  "mentioned": eachRoom((room) => (room.mentioned = 0)),
};

const read = {
  "unread": eachRoom((room) => (room.unread = 0)),
  "unread-own": eachRoom((room) => (room.unread += 1)),
  "unread-new-account": method("register", (was) => (...what) => Object.assign(was(...what), { since: 0 })),
  "unread-new-member": method("addMember", (was, chat) => (user, id, name) => {
    was(user, id, name);
    chat.user(name).reads.set(id, 0);
  }),
  "read": silent("read"),
  "read-rises": method("read", (was, chat) => (user, given) => {
    user.reads.delete(given.room);
    was(user, given);
  }),
  "read-clamped": method("read", (_, chat) => (user, { room, id }) => {
    user.reads.set(room, id);
    chat.emit("read", user, room, id);
  }),
  "read-hidden": heard("read", ({ room }, _, chat) => ({ type: chat.rooms.get(room).members ? "unknown" : "read", room })),
};

const search = {
  "search": body("GET /search", ({ messages }) => void messages.reverse()),
  "search-folded": method("search", (was) => (user, query) => {
    const { messages, before } = was(user, query);
    return { messages: messages.filter(({ content }) => content.includes(query.q)), before };
  }),
  "search-plain": method("search", (was) => (user, query) => was(user, { ...query, q: query.q.replace(/[%_]/g, "") })),
  "search-pages": body("GET /search", (found) => void (found.before = null)),
  "search-room": method("search", (was) => (user, query) => was(user, { ...query, room: undefined })),
  "search-from": method("search", (was) => (user, query) => was(user, { ...query, from: undefined })),
  "search-own-rooms": everybodyReads,
  "search-hidden": status(404, 400),
  "search-query": status(400, 422),
  "search-limit": status(400, 422),
};

const replay = {
  "replay-current": replayed((frames) => frames.map((one) => (one.type === "message" ? { ...one, content: "old" } : one))),
  "replay-deleted": replayed((frames) => frames.filter(({ type }) => type !== "delete")),
  "replay-delete-old": replayed((frames, after) => frames.filter(({ type, message }) => type !== "delete" || message > after)),
  "replay-edit-old": replayed((frames) => frames.filter(({ type }) => type !== "edit")),
  "replay-react-old": replayed((frames) => frames.filter(({ type, on }) => type !== "react" || on)),
  "replay-room": replayed((frames) => frames.flatMap((one) => (one.type === "room" ? [one, one] : [one]))),
  "replay-added": replayed((frames) => frames.map((one) => (one.type === "room" ? { ...one, id: one.id + 1 } : one))),
  "replay-removed": replayed((frames) => frames.filter(({ type }) => type !== "room_gone")),
  "replay-order": replayed((frames) => frames.reverse()),
  "replay-read": replayed((frames) => [...frames, { type: "read", room: 1, id: 1 }]),
  "replay-hidden": everybodyReads,
  "replay-mine": replayed((frames) => frames.map((one) => {
    one.reactions?.forEach((reaction) => (reaction.mine = true));
    return one;
  })),
};

const people = {
  "users": body("GET /users", ({ users }) => users.forEach((user) => void delete user.last_seen)),
  "users-sorted": body("GET /users", ({ users }) => void users.reverse()),
  "users-prefix": method("people", (was) => (_, isOnline) => was("", isOnline)),
  "users-online": body("GET /users", ({ users }) => users.forEach((user) => (user.online = false))),
  "users-disabled": method("ban", (was, chat) => (moderator, name, messages) => {
    was(moderator, name, messages);
    chat.user(name).disabled = false;
  }),
};

const pictures = {
  "image": body("POST /images", (image) => void (image.width += 1)),
  "image-type": status(415, 400),
  "image-bytes": status(413, 400),
  "image-pixels": status(413, 400),
  "image-message": without("message", "image"),
  "image-once": method("send", (was, chat) => (user, given) => {
    if (given.image) chat.images.get(given.image).message = null;
    return was(user, given);
  }),
  "image-foreign": method("send", (was, chat) => (user, given) => {
    if (given.image) chat.images.get(given.image).owner = user;
    return was(user, given);
  }),
  "image-get": answer("GET /images", ({ headers }) => void delete headers["Content-Security-Policy"]),
  "image-hidden": method("image", (was, chat) => (user, id) => chat.images.get(id) ?? was(user, id)),
  "image-removed": method("image", (was, chat) => (user, id) => chat.images.get(id) ?? was(user, id)),
  "image-deleted": undeleted,
  "image-png-text": originals,
  "image-jpeg-exif": originals,
  "image-webp-exif": originals,
};

const push = {
  "push-key": body("GET /push", (given) => void (given.key = "short")),
  "push-put": status(204, 200),
  "push-invalid": status(400, 204),
  "notify": status(204, 200),
};

const stop = {
  "rate-limited": answer("POST /login", ({ headers }) => void delete headers["Retry-After"]),
  "shutdown": closing(1001, 1000),
};

const BREAKS = {
  ...http, ...accounts, ...session, ...socket, ...talk, ...resume, ...rooms, ...changes, ...mentions, ...read, ...search,
  ...replay, ...people, ...pictures, ...push, ...stop,
};
