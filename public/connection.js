// The socket and its life: connect, authenticate, resume, notice that the other end is gone, try again.
// It knows the protocol and the outbox, and nothing of the page; timers and sockets are the global ones, so that tests
// can put their own in place.

import { nonce } from "./store/outbox.js";

/** First try again within half a second, then twice as long each time. */
const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 10_000;
/** After so much silence the server is asked whether it is still there. */
const SILENCE_MS = 30_000;
/** How long a connection, a ping or a message may go unanswered before another connection is opened. */
const ANSWER_MS = 10_000;
const TYPING_EVERY_MS = 2_000;
/**
 * How often a message is offered to a server that cannot store it before the person is asked. The wait grows by a second each
 * time, so this is ten seconds: a cluster takes up to that long to have another leader, and no person could do more about it.
 */
const STORE_ATTEMPTS = 5;
/** Close codes that ask us to keep away for a while: policy (1008) and overload (1013). */
const KEEP_AWAY = [1008, 1013];

/** How many edits, deletions and reactions may wait for their answers. */
const REQUESTS_MOST = 100;

/**
 * `start`, `stop`, `wake`, `tryNow`, `network(available)`, `typing(active, room)`, `read(room, id)`, `sight(inSight)`, and `edit`, `delete`, `react`,
 * which resolve with the event's id or reject with `{ code }`. They are not kept for later: without a connection they fail.
 *
 * Events, each a `CustomEvent`:
 * `state` (`"connecting"`, `"online"`, `"reconnecting"`, `"offline"`), `welcome` (the frame), `forget` (`{ last_id }`: start
 * from the newest page), `gap` (`{ after, last_id }`: what was missed must be read), `message`, `edit`, `delete`, `react`, `room`,
 * `room_gone` (the frames, each exactly once, ids rising), `read`, `ack`, `people` (`user_join`, `user_leave`, `presence`,
 * `typing`), `failing` (how many tries in a row have come to nothing), `ended` (the session is dead).
 */
export class Connection extends EventTarget {
  state = "connecting";
  /** The cursor: the last event this connection has delivered, or was told to skip to; null before the first success. */
  lastId = null;

  #url;
  #token;
  #outbox;
  #epoch = null;
  #socket = null;
  #network = true;
  #failures = 0;
  #attempts = new Map();
  /** The nonce on its way. One at a time: a message refused for its rate must not be overtaken by the next. */
  #inFlight = null;
  /** The room in which text is being written, or null. */
  #typing = null;
  /** Told with each ping, once it is known. */
  #inSight;
  /** By nonce, what waits for its `ack` besides messages. */
  #requests = new Map();
  /** One timer each: until the next try, for silence, for the answer to `#inFlight`, until sending and typing may go on. */
  #timers = new Map();

  constructor({ url, token, outbox, network = true }) {
    super();
    this.#url = url;
    this.#token = token;
    this.#outbox = outbox;
    this.#network = network;
    outbox.addEventListener("change", () => this.#send());
  }

  start() {
    this.#become(this.#network ? "connecting" : "offline");
    this.#connect();
  }

  stop() {
    this.#abandon();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.#token = null;
  }

  /** The page is shown again: a connection may have died unnoticed, or a long wait be under way. */
  wake() {
    if (this.state === "online") this.#probe();
    else if (this.#timers.has("retry")) this.#connect();
  }

  /** What the browser believes of the network. It can be wrong (a server on this very device), so trying goes on. */
  network(available) {
    this.#network = available;
    if (available && this.state === "online") return this.#probe();
    this.#abandon();
    this.#failures = 0;
    this.#become(available ? "reconnecting" : "offline");
    if (available) this.#connect();
    else this.#retryLater();
  }

  /** "Try now": someone does not want to wait for the next try. */
  tryNow() {
    this.#failures = 0;
    if (this.state !== "online") this.#connect();
  }

  /** Whether there is text being written; a change within two seconds of the last one told is told after them. */
  typing(active, room = 1) {
    this.#typing = active ? room : null;
    if (!active || this.state !== "online" || this.#timers.has("typing")) return;
    this.#typing = null;
    this.#write({ type: "typing", room });
    this.#after("typing", TYPING_EVERY_MS, () => this.#typing !== null && this.typing(true, this.#typing));
  }

  /** Tells this person's other connections, and the server, how far has been read. */
  read(room, id) {
    if (this.state === "online") this.#write({ type: "read", room, id });
  }

  /** Whether the page is in sight: a server that pushes does not ring the telephone of who sees the message. */
  sight(inSight) {
    if (inSight === this.#inSight) return;
    this.#inSight = inSight;
    if (this.state === "online") this.#probe();
  }

  edit(message, content) {
    return this.#request({ type: "edit", message, content });
  }

  delete(message) {
    return this.#request({ type: "delete", message });
  }

  react(message, emoji, on) {
    return this.#request({ type: "react", message, emoji, on });
  }

  #request(frame) {
    return new Promise((resolve, reject) => {
      if (this.state !== "online" || this.#requests.size >= REQUESTS_MOST) return reject({ code: "unreachable" });
      const name = nonce();
      this.#requests.set(name, { resolve, reject });
      this.#write({ ...frame, nonce: name });
      setTimeout(() => this.#finish(name, "reject", { code: "unreachable" }), ANSWER_MS);
    });
  }

  #finish(name, how, value) {
    const request = this.#requests.get(name);
    if (!request) return false;
    this.#requests.delete(name);
    request[how](value);
    return true;
  }

  #connect() {
    if (this.#token === null) return;
    this.#abandon();
    this.#cancel("retry");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#authenticate();
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code }) => this.#lost(code);
    this.#after("silence", ANSWER_MS, () => this.#lost());
  }

  #authenticate() {
    const resume = this.lastId === null ? {} : { last_id: this.lastId, epoch: this.#epoch };
    this.#write({ type: "auth", token: this.#token, rooms: true, ...resume });
  }

  /** Lets go of the socket without waiting for its close handshake, which a dead peer would never finish. */
  #abandon() {
    this.#cancel("silence");
    this.#cancel("answer");
    this.#cancel("pause");
    this.#inFlight = null;
    for (const name of [...this.#requests.keys()]) this.#finish(name, "reject", { code: "unreachable" });
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #lost(code) {
    const wasOnline = this.state === "online";
    this.#abandon();
    if (wasOnline && !KEEP_AWAY.includes(code)) this.#failures = 0;
    this.#become(this.#network ? "reconnecting" : "offline");
    this.#retryLater();
  }

  /** Half of the wait is chance, so that a restarted server is not met by everyone at once. */
  #retryLater() {
    const most = Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.#after("retry", most / 2 + (Math.random() * most) / 2, () => this.#connect());
    this.#tell("failing", this.#failures);
  }

  #receive(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    // Any frame is a sign of life.
    if (this.state === "online") this.#after("silence", SILENCE_MS, () => this.#probe());
    switch (frame?.type) {
      case "auth_success":
        return this.#welcomed(frame);
      case "auth_failed":
        // Only a dead session ends here; for the rest the server closes and we come again.
        if (frame.code === "unauthorized") this.#end();
        return;
      case "ack":
        if (this.#finish(frame.nonce, "resolve", frame.id)) return;
        if (frame.nonce === this.#inFlight) this.#answered();
        this.#attempts.delete(frame.nonce);
        this.#tell("ack", frame);
        return this.#send();
      case "error":
        return this.#refused(frame);
      case "read":
        return this.#tell("read", frame);
      case "pong":
        // What lies up to it and was not sent is not for this client.
        if (Number.isSafeInteger(frame.last_id) && frame.last_id > this.lastId) this.lastId = frame.last_id;
        return;
      case "resync":
        this.lastId = frame.last_id;
        return this.#tell(frame.after === 0 ? "forget" : "gap", frame);
      // Each of these is an event, has an id in the one order of the protocol, and moves the cursor.
      case "message":
      case "edit":
      case "delete":
      case "react":
      case "room":
      case "room_gone":
        return this.#event(frame);
      case "user_join":
      case "user_leave":
      case "presence":
      case "typing":
        return this.#tell("people", frame);
    }
  }

  #event(frame) {
    if (!Number.isSafeInteger(frame.id) || frame.id <= this.lastId) return;
    this.lastId = frame.id;
    this.#tell(frame.type, frame.type === "message" ? { room: 1, ...frame } : frame);
  }

  #welcomed(frame) {
    this.#epoch = frame.epoch;
    this.#after("silence", SILENCE_MS, () => this.#probe());
    this.#become("online");
    this.#tell("welcome", frame);
    if (this.lastId === null) {
      this.lastId = frame.last_id;
      this.#tell("forget", frame);
    }
    this.#send();
    if (this.#inSight) this.#probe();
  }

  #end() {
    this.stop();
    this.#tell("ended");
  }

  #probe() {
    this.#write({ type: "ping", in_sight: this.#inSight });
    this.#after("silence", ANSWER_MS, () => this.#replace());
  }

  /** The peer is silent: another connection at once, since this one may take minutes to fail by itself. */
  #replace() {
    this.#failures = 0;
    this.#become(this.#network ? "reconnecting" : "offline");
    this.#connect();
  }

  #send() {
    if (this.state !== "online" || this.#inFlight !== null || this.#timers.has("pause")) return;
    const next = this.#outbox.next();
    if (!next) return this.#adoptLater();
    const { room, content, nonce, reply_to: replyTo, image } = next;
    this.#inFlight = nonce;
    this.#write({
      type: "message",
      room,
      content,
      nonce,
      ...(replyTo && { reply_to: replyTo.id }),
      ...(image && { image: image.id, alt: image.alt }),
    });
    this.#after("answer", ANSWER_MS, () => this.#replace());
  }

  /** What a tab that was closed has left is sent here, once it is sure to be closed. */
  #adoptLater() {
    const wait = this.#outbox.waitFor();
    if (wait === null) return this.#cancel("adopt");
    this.#after("adopt", wait, () => this.#send());
  }

  #answered() {
    this.#inFlight = null;
    this.#cancel("answer");
  }

  #refused({ code, nonce, message, retry_after: wait }) {
    // A frame that could not even be read is refused without its nonce; only a message can matter to anyone.
    if (nonce && this.#finish(nonce, "reject", { code, message, retryAfter: Number.isFinite(wait) ? Math.ceil(wait / 1000) : null })) return;
    const refused = nonce ?? (code === "invalid_message" || code === "invalid_json" ? this.#inFlight : null);
    if (refused === null) return;
    if (refused === this.#inFlight) this.#answered();
    if (code === "rate_limited") return this.#pause(Number.isFinite(wait) ? wait : 1_000);
    if (code === "unavailable") {
      const attempts = (this.#attempts.get(refused) ?? 0) + 1;
      this.#attempts.set(refused, attempts);
      if (attempts < STORE_ATTEMPTS) return this.#pause(1_000 * attempts);
      this.#attempts.delete(refused);
    }
    this.#outbox.refuse(refused, { code, message });
  }

  /** Nothing is sent until `ms` have passed; what waits stays pending. */
  #pause(ms) {
    this.#after("pause", ms, () => this.#send());
  }

  #write(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.#tell("state", state);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #after(name, ms, action) {
    this.#cancel(name);
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name);
      action();
    }, ms));
  }

  #cancel(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}
