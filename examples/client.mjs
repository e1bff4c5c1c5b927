// A chat client in plain JavaScript: it logs in, sends each line of standard input to the lobby, and shows what is said
// there. It sends once, resumes after a break, and reads from the history what is too much to be replayed.
//
//   PASSWORD=… node examples/client.mjs 127.0.0.1:8080 ada
//
// For Node.js 22 (20.10 with --experimental-websocket). docs/PROTOCOL.md is the contract.

import { on } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const [address, username] = process.argv.slice(2);
// Only these move the cursor: the `id` of an `ack` or a `read` may be ahead of what has been shown.
const EVENTS = new Set(["message", "edit", "delete", "react", "room", "room_gone"]);

async function request(path, options) {
  const answer = await fetch(`http://${address}${path}`, { signal: AbortSignal.timeout(20_000), ...options });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error.message);
  return value;
}

const account = JSON.stringify({ username, password: process.env.PASSWORD });
const json = { "Content-Type": "application/json" };
const { token } = await request("/login", { method: "POST", headers: json, body: account });
let cursor, epoch, socket, wait, isInside = false, hasInput = true;
// Text by nonce, the oldest first: sent again on the next connection. The server stores each nonce once.
const unacknowledged = new Map();

const show = (message) => console.log(`${message.username}: ${message.content}`);
const isOver = () => !hasInput && unacknowledged.size === 0;

function send(frame) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

function sendMessage(nonce) {
  if (isInside && unacknowledged.has(nonce)) send({ type: "message", content: unacknowledged.get(nonce), nonce });
}

async function receive(frame) {
  if (frame.type === "auth_success") {
    console.log(`* ${frame.online} online`);
    // The first time there is nothing to resume: the story begins here.
    cursor ??= frame.last_id;
    ({ epoch } = frame);
    wait = 500;
    isInside = true;
    for (const nonce of unacknowledged.keys()) sendMessage(nonce);
  } else if (frame.type === "auth_failed" && frame.code === "unauthorized") {
    console.error("the server does not accept the session any more");
    process.exit(1);
  } else if (frame.type === "message") {
    show(frame);
  } else if (frame.type === "resync") {
    await readHistory(frame.after, frame.last_id);
  } else if (frame.type === "error" && frame.code === "rate_limited") {
    await sleep(frame.retry_after);
    sendMessage(frame.nonce);
  } else if (frame.type === "error" && frame.code === "unavailable") {
    // It may be stored or not: the same nonce, sent again on the next connection, settles it.
    throw new Error(frame.message);
  } else if (frame.type === "ack" || frame.type === "error") {
    if (frame.type === "error") console.log(`* refused: ${frame.message}`);
    unacknowledged.delete(frame.nonce);
  }
  if (EVENTS.has(frame.type)) cursor = Math.max(cursor, frame.id);
}

async function readHistory(after, end) {
  // Zero: the history is another one than the client knows, and its newest page is enough.
  const isNew = after === 0;
  console.log(isNew ? "* another history begins" : "* reading what was missed");
  for (let more = true; more; cursor = more ? after : end) {
    const path = isNew ? "/messages" : `/messages?after=${after}`;
    const page = await request(path, { headers: { Authorization: `Bearer ${token}` } });
    page.messages.filter(({ id }) => id <= end).forEach(show);
    after = page.messages.at(-1)?.id ?? end;
    more = !isNew && page.has_more && after < end;
  }
}

/** One connection, to its end. Frames wait for each other: what comes while the history is read is shown after it. */
async function talk() {
  let heard = Date.now();
  isInside = false;
  socket = new WebSocket(`ws://${address}/ws`);
  // A script does not see the server's pings, so it sends its own.
  const pings = setInterval(() => (Date.now() - heard > 75_000 ? socket.close() : send({ type: "ping" })), 30_000);
  socket.onopen = () => send({ type: "auth", token, last_id: cursor, epoch });
  socket.addEventListener("message", () => (heard = Date.now()));
  try {
    for await (const [{ data }] of on(socket, "message", { close: ["close", "error"] })) {
      await receive(JSON.parse(data));
      if (isOver()) return;
    }
  } finally {
    clearInterval(pings);
    socket.close();
  }
}

async function type() {
  for await (const content of createInterface({ input: process.stdin })) {
    if (content.length > 4_000) console.log("* refused: over 4,000 characters");
    if (content.length > 4_000 || content.trim() === "") continue;
    // At so many the input waits: the server is no faster than its disk.
    while (unacknowledged.size >= 32) await sleep(100);
    const nonce = crypto.randomUUID();
    unacknowledged.set(nonce, content);
    sendMessage(nonce);
  }
  hasInput = false;
  if (isOver()) socket?.close();
}

type();
for (wait = 500; ; wait = Math.min(2 * wait, 30_000)) {
  const lost = await talk().catch((error) => error);
  if (isOver()) break;
  console.log(`* ${lost?.message ?? "the connection ended"}; trying again`);
  await sleep(wait);
}
