// The same contract on Bun: what the fastest ready-made stack does with one file.
//
// Tuned as its makers advise: uWebSockets' own publish for the fan-out, prepared statements, WAL with
// `synchronous=NORMAL` (weaker than chinwag's FULL: a power cut may take acknowledged messages with it), and one
// transaction for all messages that arrived in one turn of the event loop. Acks and deliveries follow the commit.
// Left out, since no measurement needs it: rate limits, Origin checks, the web client, metrics; of the second edition all,
// with the frames "edit", "delete", "react", "read", "room" and "room_gone".
//
// bun bun.ts PORT DATABASE

import { Database } from "bun:sqlite";
import type { ServerWebSocket } from "bun";

const [port, path] = [Number(Bun.argv[2] ?? 8080), Bun.argv[3] ?? "peer.db"];
const EVERYONE = "everyone";
const REPLAY_LIMIT = 1_000;
const NAMES_LIMIT = 200;
const AUTH_TIMEOUT_MS = 10_000;
const NONCE_MS = 24 * 3600_000;
const SESSION_MS = 30 * 24 * 3600_000;
// Past this much waiting for one reader uWebSockets would drop messages silently; closing lets it come back and resume.
const BACKLOG_BYTES = 1 << 20;

const db = new Database(path, { create: true, strict: true });
db.run("PRAGMA journal_mode = WAL");
db.run("PRAGMA synchronous = NORMAL");
// The load generator writes sessions into these two tables when it needs many users.
db.run(`CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, password_hash TEXT,
        created_at INTEGER)`);
db.run(`CREATE TABLE IF NOT EXISTS sessions (id INTEGER PRIMARY KEY, digest BLOB UNIQUE, user_id INTEGER,
        created_at INTEGER, last_used_at INTEGER)`);
db.run(`CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER, content TEXT,
        created_at INTEGER)`);
db.run(`CREATE TABLE IF NOT EXISTS nonces (user_id INTEGER, nonce TEXT, id INTEGER, created_at INTEGER,
        PRIMARY KEY (user_id, nonce)) WITHOUT ROWID`);
db.run("CREATE TABLE IF NOT EXISTS history (epoch TEXT)");
if (!db.query("SELECT 1 FROM history").get()) db.run("INSERT INTO history VALUES (?)", [crypto.randomUUID()]);

const { epoch } = db.query<{ epoch: string }, []>("SELECT epoch FROM history").get()!;
const columns = "SELECT m.id, u.name AS username, m.content, m.created_at FROM messages m JOIN users u ON u.id = m.user_id";
const addUser = db.query("INSERT INTO users (name, password_hash, created_at) VALUES (?, ?, ?)");
const userByName = db.query<User & { hash: string }, [string]>(
  "SELECT id, name, password_hash AS hash FROM users WHERE name = ?",
);
const addSession = db.query("INSERT INTO sessions (digest, user_id, created_at, last_used_at) VALUES (?1, ?2, ?3, ?3)");
const dropSession = db.query("DELETE FROM sessions WHERE digest = ?");
const userBySession = db.query<User, [Uint8Array, number]>(
  "SELECT u.id, u.name FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.digest = ? AND s.last_used_at > ?",
);
const addMessage = db.query("INSERT INTO messages (user_id, content, created_at) VALUES (?, ?, ?)");
const addNonce = db.query("INSERT INTO nonces VALUES (?, ?, ?, ?)");
const idByNonce = db.query<{ id: number }, [number, string]>("SELECT id FROM nonces WHERE user_id = ? AND nonce = ?");
const forgetNonces = db.query("DELETE FROM nonces WHERE created_at < ?");
const newest = db.query<Message, [number]>(`${columns} ORDER BY m.id DESC LIMIT ?`);
const before = db.query<Message, [number, number]>(`${columns} WHERE m.id < ? ORDER BY m.id DESC LIMIT ?`);
const after = db.query<Message, [number, number]>(`${columns} WHERE m.id > ? ORDER BY m.id LIMIT ?`);

type User = { id: number; name: string };
type Message = { id: number; username: string; content: string; created_at: number };
type Peer = { user?: User; digest?: Uint8Array; timer?: Timer; typedAt: number };
type Socket = ServerWebSocket<Peer>;

let lastId = db.query<{ id: number }, []>("SELECT coalesce(max(id), 0) AS id FROM messages").get()!.id;
const online = new Map<number, { name: string; sockets: Set<Socket> }>();
let counting = false;
let countTimer: Timer | undefined;
let waiting: { socket: Socket; content: string; nonce?: string }[] = [];

const digestOf = (token: string) => Bun.SHA256.hash(token) as Uint8Array;
const problem = (status: number, code: string, message: string) => Response.json({ error: { code, message } }, { status });
const names = () => [...online.values().take(NAMES_LIMIT)].map((user) => user.name).sort();
const announce = (event: object) => server.publish(EVERYONE, JSON.stringify(event));
const send = (socket: Socket, event: object) => socket.send(JSON.stringify(event));

/** One transaction for everything this turn of the event loop brought, then the acks, then one publish a message. */
function commit() {
  const batch = waiting;
  waiting = [];
  const now = Date.now();
  const acks: [Socket, string][] = [];
  const frames: string[] = [];
  const firstId = lastId;
  try {
    db.run("BEGIN IMMEDIATE");
    for (const { socket, content, nonce } of batch) {
      const { id: user, name } = socket.data.user!;
      const known = nonce === undefined ? null : idByNonce.get(user, nonce);
      const id = known?.id ?? ++lastId;
      if (!known) {
        addMessage.run(user, content, now);
        if (nonce !== undefined) addNonce.run(user, nonce, id, now);
        frames.push(JSON.stringify({ type: "message", id, username: name, content, created_at: now }));
      }
      if (nonce !== undefined) acks.push([socket, JSON.stringify({ type: "ack", nonce, id })]);
    }
    db.run("COMMIT");
  } catch (error) {
    console.error("commit failed", error);
    if (db.inTransaction) db.run("ROLLBACK");
    lastId = firstId;
    const refusal = { type: "error", code: "unavailable", message: "the message could not be stored" };
    for (const { socket, nonce } of batch) send(socket, { ...refusal, nonce });
    return;
  }
  for (const [socket, ack] of acks) socket.send(ack);
  for (const frame of frames) server.publish(EVERYONE, frame);
}

function enter(socket: Socket, frame: any) {
  const digest = typeof frame?.token === "string" ? digestOf(frame.token) : null;
  const user = digest && frame.type === "auth" ? userBySession.get(digest, Date.now() - SESSION_MS) : null;
  if (!digest || !user) {
    send(socket, { type: "auth_failed", code: "unauthorized", message: "log in first" });
    return socket.close(1008);
  }
  clearTimeout(socket.data.timer);
  socket.data = { user, digest, typedAt: 0 };
  const first = !online.has(user.id);
  if (first) online.set(user.id, { name: user.name, sockets: new Set() });
  online.get(user.id)!.sockets.add(socket);
  send(socket, {
    type: "auth_success", username: user.name, last_id: lastId, epoch, online: online.size, users: names(),
  });
  resume(socket, frame);
  // Nothing can be committed between the replay and this: it is one turn of the loop.
  socket.subscribe(EVERYONE);
  if (first) announceChange("user_join", user.name);
}

/** Joins and leaves by name; from over 1,000 online until under 900 only their number, at most once a second. */
function announceChange(type: "user_join" | "user_leave", username: string) {
  const counted = counting;
  counting = online.size > (counting ? 899 : 1000);
  if (!counting && counted) announce({ type: "presence", online: online.size, users: names() });
  if (!counting) return announce({ type, username });
  countTimer ??= setTimeout(() => {
    countTimer = undefined;
    if (counting) announce({ type: "presence", online: online.size });
  }, 1000);
}

function resume(socket: Socket, { last_id, epoch: theirs }: any) {
  if (!Number.isSafeInteger(last_id)) return;
  const foreign = last_id > lastId || (theirs !== undefined && theirs !== epoch);
  const missed = foreign ? [] : after.all(last_id, REPLAY_LIMIT + 1);
  if (foreign) send(socket, { type: "resync", after: 0, last_id: lastId });
  else if (missed.length > REPLAY_LIMIT) send(socket, { type: "resync", after: last_id, last_id: lastId });
  else for (const message of missed) send(socket, { type: "message", ...message });
}

function receive(socket: Socket, text: string | Buffer) {
  if (typeof text !== "string") return socket.close(1003);
  let frame: any;
  try {
    frame = JSON.parse(text);
  } catch {
    frame = null;
  }
  const { user } = socket.data;
  if (!user) return enter(socket, frame);
  switch (frame?.type) {
    case "message": {
      const content = typeof frame.content === "string" ? frame.content.trim() : "";
      const { nonce } = frame;
      const longest = content.length <= 4000 ? content.length : [...content].length;
      if (longest < 1 || longest > 4000 || (nonce !== undefined && !/^.{1,64}$/su.test(nonce))) {
        return send(socket, { type: "error", code: "invalid_message", message: "1 to 4,000 characters", nonce });
      }
      if (waiting.push({ socket, content, nonce }) === 1) setImmediate(commit);
      return;
    }
    case "typing": {
      const now = Date.now();
      if (now - socket.data.typedAt < 1000) return;
      socket.data.typedAt = now;
      return socket.publish(EVERYONE, JSON.stringify({ type: "typing", username: user.name }));
    }
    case "ping":
      return socket.send('{"type":"pong"}');
    default:
      return send(socket, { type: "error", code: "invalid_json", message: "no such frame" });
  }
}

function leave(socket: Socket) {
  clearTimeout(socket.data.timer);
  const { user } = socket.data;
  const present = user && online.get(user.id);
  if (!present) return;
  present.sockets.delete(socket);
  if (present.sockets.size > 0) return;
  online.delete(user.id);
  announceChange("user_leave", user.name);
}

function tokenOf(request: Request) {
  const token = request.headers.get("authorization")?.match(/^Bearer (.+)$/)?.[1];
  const digest = token ? digestOf(token) : null;
  const user = digest && userBySession.get(digest, Date.now() - SESSION_MS);
  return user ? { digest: digest!, user } : null;
}

async function credentials(request: Request) {
  const body: any = await request.json().catch(() => null);
  const { username, password } = body ?? {};
  return typeof username === "string" && typeof password === "string" ? { username, password } : null;
}

async function register(request: Request) {
  const given = await credentials(request);
  if (!given) return problem(400, "invalid_json", "username and password are needed");
  const { username, password } = given;
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/.test(username)) return problem(422, "invalid_username", "no such name");
  if (password.length < 8 || password.length > 256) return problem(422, "invalid_password", "8 to 256 characters");
  const hash = await Bun.password.hash(password, { algorithm: "argon2id", memoryCost: 19456, timeCost: 2 });
  try {
    addUser.run(username, hash, Date.now());
  } catch {
    return problem(409, "username_taken", "the name is taken");
  }
  return Response.json({ username }, { status: 201 });
}

async function login(request: Request) {
  const given = await credentials(request);
  if (!given) return problem(400, "invalid_json", "username and password are needed");
  const user = userByName.get(given.username);
  if (!user || !(await Bun.password.verify(given.password, user.hash))) {
    return problem(401, "invalid_credentials", "wrong name or password");
  }
  const token = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url");
  const now = Date.now();
  addSession.run(digestOf(token), user.id, now);
  return Response.json({ token, username: user.name, expires_at: now + SESSION_MS });
}

function logout(request: Request) {
  const session = tokenOf(request);
  if (!session) return problem(401, "unauthorized", "log in first");
  dropSession.run(session.digest);
  for (const socket of online.get(session.user.id)?.sockets ?? []) {
    if (socket.data.digest && Buffer.compare(socket.data.digest, session.digest) === 0) socket.close(1008);
  }
  return new Response(null, { status: 204 });
}

function history(request: Request) {
  if (!tokenOf(request)) return problem(401, "unauthorized", "log in first");
  const query = new URL(request.url).searchParams;
  const limit = Number(query.get("limit") ?? 50);
  const [from, to] = [query.get("before"), query.get("after")];
  const numbers = [limit, Number(from ?? 0), Number(to ?? 0)];
  if (!numbers.every(Number.isSafeInteger) || limit < 1 || limit > 200 || (from !== null && to !== null)) {
    return problem(400, "invalid_request", "limit is 1 to 200, before and after are ids");
  }
  const page =
    to !== null ? after.all(Number(to), limit + 1)
    : from !== null ? before.all(Number(from), limit + 1)
    : newest.all(limit + 1);
  const has_more = page.length > limit;
  if (has_more) page.pop();
  if (to === null) page.reverse();
  return Response.json({ messages: page, has_more });
}

const server = Bun.serve<Peer, {}>({
  hostname: "127.0.0.1",
  port,
  routes: {
    "/healthz": Response.json({ status: "ok" }),
    "/register": { POST: register },
    "/login": { POST: login },
    "/logout": { POST: logout },
    "/messages": { GET: history },
    "/ws": {
      GET(request, server) {
        if (server.upgrade(request, { data: { typedAt: 0 } })) return;
        return problem(426, "invalid_request", "a WebSocket is wanted here");
      },
    },
  },
  fetch: () => problem(404, "not_found", "nothing here"),
  websocket: {
    open(socket) {
      socket.data.timer = setTimeout(() => {
        send(socket, { type: "auth_failed", code: "auth_timeout", message: "auth comes first" });
        socket.close(1008);
      }, AUTH_TIMEOUT_MS);
    },
    message: receive,
    close: leave,
    perMessageDeflate: false,
    maxPayloadLength: 64 * 1024,
    idleTimeout: 75,
    sendPings: true,
    backpressureLimit: BACKLOG_BYTES,
    closeOnBackpressureLimit: true,
  },
});

setInterval(() => forgetNonces.run(Date.now() - NONCE_MS), 3600_000);
for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.on(signal, () => {
    server.stop(true);
    db.close();
    process.exit(0);
  });
}
console.log(`listening on http://127.0.0.1:${server.port}`);
