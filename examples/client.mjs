// A chat client in plain JavaScript: it logs in, sends once, resumes, and reads what is too much to be replayed.
//
//   PASSWORD=… node examples/client.mjs 127.0.0.1:8080 ada
//
// It wants Node.js 22 (20 with --experimental-websocket). Each line of standard input goes to the lobby; it ends when
// its input does and all of it is stored. docs/PROTOCOL.md is the contract.

import { createInterface } from "node:readline";

const [address, user] = process.argv.slice(2);
const EVENTS = new Set(["message", "edit", "delete", "react", "room", "room_gone"]);
/** Sent and not acknowledged. At that many the input is not read: the server is no faster than its disk. */
const UNACKNOWLEDGED_MAX = 32;
/** The page cannot see the protocol's pings, so it sends its own, and silence for longer than two is the end. */
const PING_MS = 30_000, SILENCE_MS = 75_000;

/** The session is over: to try again would be no use. */
class Refused extends Error {}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function request(path, token, body) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const method = body ? "POST" : "GET";
  const options = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(20_000) };
  const answer = await fetch(`http://${address}${path}`, options);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error.message);
  return value;
}

const { token } = await request("/login", "", { username: user, password: process.env.PASSWORD });
/** Everything of this history up to the cursor has been shown. A client that comes back with both gets the rest. */
let cursor = null, epoch = null;
let socket = null, hasInput = true, wake = () => {};
/** By nonce, the oldest first. Sent again after a break; the server knows a nonce that it has stored. */
const unacknowledged = new Map();

const isOver = () => !hasInput && unacknowledged.size === 0;
const show = ({ username, content }) => console.log(`${username}: ${content}`);

function send(frame) {
  // Without a connection: the next one begins with what has no answer.
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

const sendMessage = (nonce) => send({ type: "message", content: unacknowledged.get(nonce), nonce });

async function take(frame) {
  switch (frame.type) {
    case "auth_success":
      console.log(`* ${frame.online} online`);
      // The first time there is nothing to resume: the story begins here.
      cursor ??= frame.last_id;
      epoch = frame.epoch;
      for (const nonce of unacknowledged.keys()) sendMessage(nonce);
      break;
    case "auth_failed":
      if (frame.code === "unauthorized") throw new Refused("the server does not accept the session any more");
      break;
    case "message":
      show(frame);
      break;
    case "resync":
      await readHistory(frame.after, frame.last_id);
      break;
    case "error":
      if (frame.code === "rate_limited") {
        await sleep(frame.retry_after ?? 1_000);
        if (unacknowledged.has(frame.nonce)) sendMessage(frame.nonce);
        break;
      }
      // It may be stored or not: the same nonce, sent again on the next connection, settles it.
      if (frame.code === "unavailable") return socket.close();
      console.log(`* refused: ${frame.message}`);
    // falls through
    case "ack":
      unacknowledged.delete(frame.nonce);
      wake();
  }
  // Of what an id moves the cursor. `ack` and `read` have one too, and may be ahead of what was shown.
  if (EVENTS.has(frame.type)) cursor = Math.max(cursor, frame.id);
  if (isOver()) socket.close();
}

async function readHistory(after, end) {
  // Zero: this is another history than the one that was read, and its newest page is enough.
  const isNew = after === 0;
  console.log(isNew ? "* another history begins" : "* reading what was missed");
  for (;;) {
    const page = await request(isNew ? "/messages" : `/messages?after=${after}`, token);
    page.messages.filter(({ id }) => id <= end).forEach(show);
    after = page.messages.at(-1)?.id ?? end;
    const isDone = isNew || !page.has_more || after >= end;
    cursor = isDone ? end : after;
    if (isDone) return;
  }
}

/** One connection to its end: whether it got as far as to be let in. */
function talk() {
  return new Promise((resolve, reject) => {
    let heard = Date.now(), wasIn = false, isBroken = false, work = Promise.resolve();
    socket = new WebSocket(`ws://${address}/ws`);
    const pings = setInterval(() => {
      if (Date.now() - heard > SILENCE_MS) socket.close();
      else send({ type: "ping" });
    }, PING_MS);
    socket.onopen = () => send({ type: "auth", token, ...(cursor !== null && { last_id: cursor, epoch }) });
    socket.onmessage = ({ data }) => {
      heard = Date.now();
      const frame = JSON.parse(data);
      wasIn ||= frame.type === "auth_success";
      // One after the other: what comes while the history is read waits for it, and goes if it cannot be read.
      work = work.then(() => isBroken || take(frame)).catch((error) => {
        isBroken = true;
        socket.close();
        if (error instanceof Refused) reject(error);
      });
    };
    socket.onclose = () => {
      clearInterval(pings);
      work.then(() => resolve(wasIn));
    };
  });
}

async function type() {
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === "") continue;
    while (unacknowledged.size >= UNACKNOWLEDGED_MAX) await new Promise((freed) => (wake = freed));
    const nonce = crypto.randomUUID();
    unacknowledged.set(nonce, line);
    sendMessage(nonce);
  }
  hasInput = false;
  if (isOver()) socket?.close();
}

type();
for (let wait = 500; ; wait = Math.min(2 * wait, 30_000)) {
  if (await talk()) wait = 500;
  if (isOver()) break;
  console.log("* the connection ended; trying again");
  await sleep(wait);
}
