// A small server of the whole contract (docs/PROTOCOL.md), in memory: for developing the web client against, and for
// proving the conformance suite, which must pass it whole, and fail it row by row when it is broken on purpose.
//
//     node tests/conformance/server.mjs --port 8080 --public public --seed-demo
//
// It is no server to use: it forgets everything, and delivers no push. Says `listening on URL` once it does.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { breakRow } from "./broken.mjs";
import { Chat } from "./chat.mjs";
import { Connections } from "./connections.mjs";
import { seedDemo } from "./demo.mjs";
import { hooks } from "./hooks.mjs";
import { filesOf } from "./public.mjs";
import { LIMITS, REACTIONS, Refusal } from "./rules.mjs";
import { isUpgrade, Socket } from "./socket.mjs";

const BODY_MAX_BYTES = 64 * 1024;
const BODY_TIMEOUT_MS = 10_000;
const URI_MAX_BYTES = 2 * 1024;
/** Logins and registrations of one address: so many at once, then one every three seconds. */
const AUTH_RATE_MS = 3_000;
/** A longer answer goes in chunks. */
const HELD_BYTES = 256 * 1024;

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    public: { type: "string" },
    name: { type: "string", default: "chinwag" },
    registration: { type: "string", default: "open" },
    rooms: { type: "string", default: "everyone" },
    invites: { type: "string", default: "moderators" },
    images: { type: "string", default: "on" },
    rate: { type: "string", default: "10" },
    "auth-rate": { type: "string", default: "100" },
    ping: { type: "string", default: "30" },
    bot: { type: "string" },
    broken: { type: "string" },
    "seed-demo": { type: "boolean", default: false },
  },
});

const chat = new Chat({ ...options, images: options.images === "on", rate: Number(options.rate) });
const connections = new Connections(chat, {
  auth: 10_000, ping: 1_000 * Number(options.ping), silence: 2_500 * Number(options.ping),
});
let stopping = false;
if (options.broken !== undefined) breakRow(options.broken);
hooks.setup(chat, connections);

// --- what every answer carries ---

const SECURITY = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; " +
    "manifest-src 'self'; worker-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "X-Frame-Options": "DENY",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cache-Control": "no-store",
};

/** An answer: `body` is a value for JSON, or bytes with their own type in `headers`. */
const answer = (status, body, headers = {}) => ({ status, body, headers });
const json = (body) => answer(200, body);
const NOTHING = answer(204);

function write(request, response, { status, body, headers }) {
  const isBytes = Buffer.isBuffer(body) || typeof body === "string";
  const bytes = body === undefined ? Buffer.alloc(0) : isBytes ? Buffer.from(body) : Buffer.from(JSON.stringify(body));
  const all = { ...SECURITY, ...(body === undefined || isBytes ? {} : { "Content-Type": "application/json" }), ...headers };
  if (bytes.length <= HELD_BYTES && status !== 204) all["Content-Length"] = bytes.length;
  if (status >= 400 && !request.complete) all.Connection = "close";
  response.writeHead(status, all);
  if (request.method === "HEAD") return response.end();
  for (let at = 0; at < bytes.length; at += HELD_BYTES) response.write(bytes.subarray(at, at + HELD_BYTES));
  response.end();
}

function refuse(refusal) {
  if (!(refusal instanceof Refusal)) {
    console.error(refusal);
    refusal = new Refusal("unavailable");
  }
  const { code, message, status, wait, headers } = refusal;
  const after = wait !== undefined ? Math.ceil(wait / 1_000) : code === "unavailable" ? 1 : undefined;
  const more = after === undefined ? {} : { "Retry-After": String(after) };
  if (status === 401) more["WWW-Authenticate"] = "Bearer";
  return answer(status, { error: { code, message } }, { ...more, ...headers });
}

// --- what a request carries ---

/** The whole body, or a refusal once it is too large or too slow. */
async function bodyOf(request, most = BODY_MAX_BYTES) {
  let timer;
  const tooSlow = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Refusal("invalid_request", "too slow", { status: 408 })), BODY_TIMEOUT_MS);
  });
  try {
    return await Promise.race([readBody(request, most), tooSlow]);
  } finally {
    clearTimeout(timer);
  }
}

async function readBody(request, most) {
  const tooLarge = new Refusal("payload_too_large");
  if (Number(request.headers["content-length"] ?? 0) > most) throw tooLarge;
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > most) throw tooLarge;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const mediaType = (request) => (request.headers["content-type"] ?? "").split(";")[0].trim().toLowerCase();

function textOf(bytes, code) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refusal(code, "the body is not UTF-8");
  }
}

/** The object in the body; with `shape` each field named there must have the type said, or with `?` be absent or null. */
async function objectOf(request, shape = {}) {
  if (mediaType(request) !== "application/json") throw new Refusal("unsupported_media_type");
  const text = textOf(await bodyOf(request), "invalid_request");
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Refusal("invalid_json");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Refusal("invalid_json");
  for (const [field, wanted] of Object.entries(shape)) {
    const type = wanted.replace("?", "");
    const absent = value[field] === undefined || value[field] === null;
    if (absent ? !wanted.endsWith("?") : typeof value[field] !== type) throw new Refusal("invalid_json", `${field}: ${type}`);
    if (absent) delete value[field];
  }
  request.object = value;
  return value;
}

function sessionOf(request) {
  const [, token] = /^Bearer +([^ ]+)$/i.exec(request.headers.authorization ?? "") ?? [];
  if (token === undefined) throw new Refusal("unauthorized");
  return chat.session(token);
}

/** The session of a person: the routes about accounts are not for bots. */
function personOf(request) {
  const session = sessionOf(request);
  if (session.user.bot) throw new Refusal("forbidden", "not for bots");
  return session;
}

function number(query, name, { least = 0, most = Number.MAX_SAFE_INTEGER, code = "invalid_request" } = {}) {
  const values = query.getAll(name);
  if (values.length === 0) return undefined;
  const value = Number(values[0]);
  if (values.length > 1 || !/^\d+$/.test(values[0]) || value < least || value > most) {
    throw new Refusal(code, `${name}: ${least} to ${most}`);
  }
  return value;
}

const idIn = (text) => {
  const id = Number(text);
  if (!Number.isSafeInteger(id)) throw new Refusal("not_found");
  return id;
};

function nonceOf(request, body) {
  const header = request.headers["idempotency-key"];
  if (header !== undefined && body.nonce !== undefined && body.nonce !== header) throw new Refusal("invalid_request");
  return header ?? body.nonce;
}

function checkOrigin(request) {
  const { origin, host } = request.headers;
  if (origin === undefined) return;
  if (origin.replace(/^https?:\/\//, "") !== host) throw new Refusal("forbidden_origin");
}

const attempts = new Map();

/** Limits what may be tried with passwords, by address. */
function spendAttempt(request) {
  const address = request.socket.remoteAddress;
  const burst = Number(options["auth-rate"]);
  const now = Date.now();
  const bucket = attempts.get(address) ?? { left: burst, at: now };
  bucket.left = Math.min(burst, bucket.left + (now - bucket.at) / AUTH_RATE_MS);
  bucket.at = now;
  if (attempts.size > 1_000) attempts.clear();
  attempts.set(address, bucket);
  if (bucket.left < 1) throw new Refusal("rate_limited", undefined, { wait: Math.ceil((1 - bucket.left) * AUTH_RATE_MS) });
  bucket.left -= 1;
}

// --- routes ---

const ACCOUNT = { username: "string", password: "string", invite: "string?" };

async function register(request) {
  checkOrigin(request);
  const { username, password, invite } = await objectOf(request, ACCOUNT);
  spendAttempt(request);
  return answer(201, { username: chat.register(username, password, invite).name });
}

async function login(request) {
  checkOrigin(request);
  const { username, password } = await objectOf(request, { username: "string", password: "string" });
  spendAttempt(request);
  const { token, session } = chat.login(username, password, clientOf(request));
  return json({ token, username: session.user.name, expires_at: session.expires_at });
}

/** A short form of the User-Agent. */
function clientOf({ headers }) {
  const agent = headers["user-agent"] ?? "";
  const browser = /(Firefox|Edg|OPR|Chrome|Safari|curl)\//.exec(agent)?.[1] ?? agent.slice(0, 40);
  const system = /(Android|iPhone|iPad|Windows|Macintosh|Linux)/.exec(agent)?.[1];
  return system ? `${browser} on ${system}` : browser;
}

function logout(request) {
  checkOrigin(request);
  chat.end(sessionOf(request));
  return NOTHING;
}

function history(request, query) {
  const { user } = sessionOf(request);
  const range = { limit: number(query, "limit", { least: 1, most: LIMITS.page }) ?? 50 };
  for (const name of ["before", "after", "around"]) range[name] = number(query, name);
  if (["before", "after", "around"].filter((name) => range[name] !== undefined).length > 1) {
    throw new Refusal("invalid_request", "one of before, after, around");
  }
  return json(chat.page(user, chat.room(user, number(query, "room") ?? 1), range));
}

async function post(request, query) {
  checkOrigin(request);
  const { user } = sessionOf(request);
  const room = number(query, "room");
  let body;
  if (["text/plain", "application/x-www-form-urlencoded"].includes(mediaType(request))) {
    const text = textOf(await bodyOf(request), "invalid_request");
    body = { content: text.replace(/\r?\n$/, ""), room };
  } else {
    body = await objectOf(request);
    if (room !== undefined && body.room !== undefined && body.room !== room) throw new Refusal("invalid_request");
    body.room ??= room;
  }
  return answer(201, { id: chat.send(user, { ...body, nonce: nonceOf(request, body) }) });
}

async function editMessage(request, query, id) {
  const { user } = sessionOf(request);
  const body = await objectOf(request);
  return json({ id: chat.edit(user, { ...body, message: idIn(id), nonce: nonceOf(request, body) }) });
}

function deleteMessage(request, query, id) {
  const { user } = sessionOf(request);
  return json({ id: chat.delete(user, { message: idIn(id), nonce: nonceOf(request, {}) }) });
}

function listRooms(request) {
  const { user } = sessionOf(request);
  return json({ rooms: chat.readable(user).map((room) => chat.roomFor(user, room)) });
}

async function createRoom(request) {
  const { user } = sessionOf(request);
  return answer(201, chat.roomFor(user, chat.createRoom(user, await objectOf(request))));
}

async function direct(request) {
  const { user } = sessionOf(request);
  const { room, made } = chat.direct(user, (await objectOf(request, { username: "string" })).username);
  return answer(made ? 201 : 200, chat.roomFor(user, room));
}

async function patchRoom(request, query, id) {
  const { user } = sessionOf(request);
  return json(chat.roomFor(user, chat.patchRoom(user, idIn(id), await objectOf(request))));
}

function addMember(request, query, id, name) {
  chat.addMember(sessionOf(request).user, idIn(id), name);
  return NOTHING;
}

function removeMember(request, query, id, name) {
  chat.removeMember(sessionOf(request).user, idIn(id), name);
  return NOTHING;
}

async function notify(request, query, id) {
  const { user } = sessionOf(request);
  chat.notify(user, idIn(id), (await objectOf(request, { what: "string" })).what);
  return NOTHING;
}

function search(request, query) {
  const { user } = sessionOf(request);
  return json(chat.search(user, {
    q: query.get("q") ?? "", room: number(query, "room"), from: query.get("from") ?? undefined, before: number(query, "before"),
    limit: number(query, "limit", { least: 1, most: LIMITS.search }) ?? LIMITS.search_default,
  }));
}

function users(request, query) {
  sessionOf(request);
  return json({ users: chat.people(query.get("prefix") ?? "", (user) => connections.isOnline(user)) });
}

function about() {
  return json({
    name: options.name, version: "0.0.0", registration: options.registration, new: chat.isNew, push: true,
    reactions: REACTIONS, limits: LIMITS,
  });
}

async function changePassword(request) {
  const session = personOf(request);
  const body = await objectOf(request, { password: "string", new_password: "string" });
  spendAttempt(request);
  chat.changePassword(session, body.password, body.new_password);
  return NOTHING;
}

function listSessions(request) {
  const current = personOf(request);
  const sessions = chat.sessionsOf(current.user).map((session) => ({
    id: session.id, created_at: session.created_at, last_used_at: session.last_used_at, current: session === current,
    client: session.client,
  }));
  return json({ sessions });
}

function endSession(request, query, id) {
  const { user } = personOf(request);
  const session = chat.sessionsOf(user).find((one) => one.id === idIn(id));
  if (!session) throw new Refusal("not_found");
  chat.end(session);
  return NOTHING;
}

function endOthers(request) {
  const current = personOf(request);
  for (const session of chat.sessionsOf(current.user)) if (session !== current) chat.end(session);
  return NOTHING;
}

async function deleteAccount(request) {
  const { user } = personOf(request);
  const { password, messages } = await objectOf(request, { password: "string", messages: "boolean?" });
  spendAttempt(request);
  chat.deleteAccount(user, password, messages === true);
  return NOTHING;
}

function exportOwn(request) {
  const lines = chat.exportOf(personOf(request).user).map((message) => `${JSON.stringify(message)}\n`);
  return answer(200, lines.join(""), { "Content-Type": "application/x-ndjson" });
}

async function makeInvite(request) {
  const { user } = personOf(request);
  const { uses = 1, expires_in: within = 7 * 24 * 3_600_000 } = await objectOf(request, { uses: "number?", expires_in: "number?" });
  const { id, code } = chat.invite(user, uses, within);
  return answer(201, { id, code, url: `http://${request.headers.host}/#invite=${code}` });
}

function listInvites(request) {
  return json({ invites: chat.invitesFor(personOf(request).user) });
}

function revokeInvite(request, query, id) {
  chat.revokeInvite(personOf(request).user, idIn(id));
  return NOTHING;
}

async function ban(request, query, name) {
  const { user } = personOf(request);
  const { messages } = await objectOf(request, { messages: "boolean?" });
  chat.ban(user, name, messages === true);
  return NOTHING;
}

function unban(request, query, name) {
  chat.unban(personOf(request).user, name);
  return NOTHING;
}

async function addImage(request) {
  if (options.images !== "on") throw new Refusal("not_found");
  const { user } = sessionOf(request);
  return answer(201, chat.addImage(user, await bodyOf(request, LIMITS.image_bytes)));
}

function image(request, query, id) {
  const { type, bytes } = chat.image(sessionOf(request).user, idIn(id));
  return answer(200, bytes, {
    "Content-Type": type, "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, max-age=31536000, immutable",
  });
}

const PUSH_KEY = Buffer.alloc(65, 4).toString("base64url");

async function putPush(request) {
  const { user } = personOf(request);
  const { endpoint, keys, what } = await objectOf(request, { endpoint: "string", keys: "object", what: "string" });
  if (!/^https:\/\//.test(endpoint) || !["all", "mentions"].includes(what) || typeof keys.p256dh !== "string" ||
    typeof keys.auth !== "string") throw new Refusal("invalid_request");
  for (const other of chat.users.values()) other.pushes.delete(endpoint);
  user.pushes.set(endpoint, what);
  return NOTHING;
}

async function deletePush(request) {
  const { user } = personOf(request);
  user.pushes.delete((await objectOf(request, { endpoint: "string" })).endpoint);
  return NOTHING;
}

const pushKey = (request) => (personOf(request), json({ key: PUSH_KEY }));

function health() {
  if (stopping) throw new Refusal("unavailable");
  return json({ status: "ok" });
}

const ID = "(\\d{1,16})";
const NAME = "([^/]{1,96})";
const ROUTES = [
  ["/register", { POST: register }], ["/login", { POST: login }], ["/logout", { POST: logout }],
  ["/messages", { GET: history, POST: post }], [`/messages/${ID}`, { PATCH: editMessage, DELETE: deleteMessage }],
  ["/rooms", { GET: listRooms, POST: createRoom }], [`/rooms/${ID}`, { PATCH: patchRoom }],
  [`/rooms/${ID}/members/${NAME}`, { PUT: addMember, DELETE: removeMember }], [`/rooms/${ID}/notify`, { PUT: notify }],
  ["/direct", { POST: direct }], ["/search", { GET: search }], ["/users", { GET: users }], ["/about", { GET: about }],
  [`/users/${NAME}/ban`, { POST: ban }], [`/users/${NAME}/unban`, { POST: unban }],
  ["/password", { POST: changePassword }], ["/sessions", { GET: listSessions, DELETE: endOthers }],
  [`/sessions/${ID}`, { DELETE: endSession }], ["/account", { DELETE: deleteAccount }], ["/export", { GET: exportOwn }],
  ["/invites", { POST: makeInvite, GET: listInvites }], [`/invites/${ID}`, { DELETE: revokeInvite }],
  ["/images", { POST: addImage }], [`/images/${ID}`, { GET: image }],
  ["/push", { PUT: putPush, DELETE: deletePush, GET: pushKey }], ["/healthz", { GET: health }],
  ["/ws", { GET: () => { throw new Refusal("invalid_request", "ask for an upgrade", { status: 426, headers: { Upgrade: "websocket", Connection: "upgrade" } }); } }],
].map(([path, methods]) => ({ pattern: new RegExp(`^${path}$`), methods }));

async function route(request) {
  if (Buffer.byteLength(request.url) > URI_MAX_BYTES) throw new Refusal("invalid_request", "too long", { status: 414 });
  const [path, queryText = ""] = request.url.split("?", 2);
  const method = request.method === "HEAD" ? "GET" : request.method;
  for (const { pattern, methods } of ROUTES) {
    const parts = pattern.exec(path)?.slice(1);
    if (!parts) continue;
    const allow = allowed(methods);
    if (method === "OPTIONS") return answer(204, undefined, { Allow: allow });
    if (!methods[method]) throw new Refusal("method_not_allowed", undefined, { headers: { Allow: allow } });
    return methods[method](request, new URLSearchParams(queryText), ...parts.map(decoded));
  }
  const file = asset(path);
  if (!file) throw new Refusal("not_found");
  if (method === "OPTIONS") return answer(204, undefined, { Allow: allowed({ GET: file }) });
  if (method !== "GET") throw new Refusal("method_not_allowed", undefined, { headers: { Allow: allowed({ GET: file }) } });
  if (request.headers["if-none-match"] === file.headers.ETag) return answer(304, undefined, file.headers);
  return file;
}

const allowed = (methods) => [...Object.keys(methods), ...(methods.GET ? ["HEAD"] : []), "OPTIONS"].join(", ");

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new Refusal("not_found");
  }
}

// --- the web client, read anew for each request, since somebody is working on it ---

const TYPES = {
  html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8",
  svg: "image/svg+xml", png: "image/png", ico: "image/x-icon", webmanifest: "application/manifest+json", json: "application/json",
  woff2: "font/woff2", txt: "text/plain; charset=utf-8",
};

/** The answer with the file at `path`, or null. Only what a walk of the directory finds is served. */
function asset(path) {
  if (options.public === undefined) return null;
  const files = filesOf(options.public);
  if (path !== "/version.js" && !files.has(path)) return null;
  const digest = createHash("sha256");
  for (const [at, content] of files) digest.update(at).update(content);
  const version = digest.digest("hex").slice(0, 16);
  const names = [...files.keys()].filter((at) => at !== "/sw.js");
  const content = path === "/version.js"
    ? Buffer.from(`export const VERSION = "${version}";\nexport const FILES = ${JSON.stringify(names)};\n`)
    : files.get(path);
  const type = TYPES[path === "/" ? "html" : path.split(".").at(-1)] ?? "application/octet-stream";
  return answer(200, content, { "Content-Type": type, "Cache-Control": "no-cache", ETag: `"${version}"` });
}

// --- listening ---

const server = createServer({ maxHeaderSize: 16 * 1024 }, async (request, response) => {
  request.on("error", () => {});
  let result;
  try {
    hooks.asked(request);
    result = await route(request);
  } catch (refusal) {
    result = refuse(refusal);
  }
  write(request, response, hooks.answered(request, result));
});

server.on("upgrade", (request, stream, head) => {
  stream.on("error", () => stream.destroy());
  const refusal = upgradeRefusal(request);
  if (refusal === null) return connections.take(new Socket(request, stream, head));
  const { status, body, headers } = hooks.answered(request, refuse(refusal));
  const text = JSON.stringify(body);
  const lines = Object.entries({ ...SECURITY, ...headers, "Content-Type": "application/json", "Content-Length": text.length, Connection: "close" });
  stream.end(`HTTP/1.1 ${status} Refused\r\n${lines.map((line) => line.join(": ")).join("\r\n")}\r\n\r\n${text}`);
});

function upgradeRefusal(request) {
  if (request.url.split("?")[0] !== "/ws") return new Refusal("not_found");
  if (request.method !== "GET") return new Refusal("method_not_allowed", undefined, { headers: { Allow: "GET, HEAD, OPTIONS" } });
  if (!isUpgrade(request)) return new Refusal("invalid_request", "not an upgrade to WebSocket 13", { status: 426 });
  if (connections.isFull || stopping) return new Refusal("unavailable");
  try {
    checkOrigin(request);
    return null;
  } catch (refusal) {
    return refusal;
  }
}

server.on("clientError", (error, stream) => {
  const { status } = hooks.answered({ method: "", url: "" }, answer(error.code === "HPE_HEADER_OVERFLOW" ? 431 : 400));
  const body = JSON.stringify({ error: { code: "invalid_request", message: "not a request that HTTP allows" } });
  stream.end(`HTTP/1.1 ${status} Refused\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    if (stopping) process.exit(1);
    stopping = true;
    connections.stop();
    server.close(() => process.exit(0));
    setTimeout(() => process.exit(0), 2_500).unref();
  });
}

if (options["seed-demo"]) seedDemo(chat);
if (options.bot) console.log(`bot ${options.bot} ${chat.addBot(options.bot)}`);
server.listen(Number(options.port), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
