import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Outbox } from "../../../public/store/outbox.js";
import { Connection } from "../../../public/connection.js";
import { FakeSocket, FakeStore, message } from "./fakes.js";

globalThis.WebSocket = FakeSocket;

let outbox, connection, heard;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  FakeSocket.all = [];
  outbox = new Outbox(new FakeStore(), "outbox");
  connection = new Connection({ url: "ws://here/ws", token: "secret", outbox });
  heard = [];
  for (const type of ["state", "forget", "gap", "message", "ended"]) {
    connection.addEventListener(type, ({ detail }) => heard.push([type, detail?.id ?? detail?.last_id ?? detail]));
  }
  connection.start();
});

const success = (last_id = 0, epoch = "e1") => ({ type: "auth_success", username: "Ada", last_id, epoch, online: 1, users: ["Ada"] });

function online(last_id = 0, epoch) {
  FakeSocket.last.open();
  FakeSocket.last.receive(success(last_id, epoch));
}

const write = (text) => outbox.add({ content: text, username: "Ada", after: connection.lastId ?? 0 }).nonce;

test("the token is in the first frame and not in the address", () => {
  online();
  assert.deepEqual(FakeSocket.last.sent[0], { type: "auth", token: "secret", rooms: true });
  assert.equal(String(FakeSocket.last.url).includes("secret"), false);
});

test("the first connection starts from the newest page, a later one resumes after the last message", () => {
  online(7);
  FakeSocket.last.receive({ type: "message", ...message(8) });
  FakeSocket.last.drop();
  mock.timers.tick(1_000);
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent[0], { type: "auth", token: "secret", rooms: true, last_id: 8, epoch: "e1" });
  assert.deepEqual(heard.filter(([type]) => type !== "state"), [["forget", 7], ["message", 8]]);
});

test("an empty history is resumed from 0, which is not the same as from nowhere", () => {
  online(0);
  FakeSocket.last.drop();
  mock.timers.tick(1_000);
  FakeSocket.last.open();
  assert.equal(FakeSocket.last.sent[0].last_id, 0);
});

test("a message that was delivered before is not delivered again", () => {
  online(3);
  for (const id of [4, 4, 3, 5]) FakeSocket.last.receive({ type: "message", ...message(id) });
  assert.deepEqual(heard.filter(([type]) => type === "message").map(([, id]) => id), [4, 5]);
});

test("an ack does not move the place to resume from: what precedes it may still be on its way", () => {
  online(3);
  const nonce = write("hello");
  FakeSocket.last.receive({ type: "ack", nonce, id: 9 });
  assert.equal(connection.lastId, 3);
});

test("resync skips to its last_id, and with after 0 forgets", () => {
  online(3);
  FakeSocket.last.receive({ type: "resync", after: 3, last_id: 5_000 });
  assert.equal(connection.lastId, 5_000);
  FakeSocket.last.receive({ type: "resync", after: 0, last_id: 2 });
  assert.equal(connection.lastId, 2);
  assert.deepEqual(heard.filter(([type]) => type !== "state"), [["forget", 3], ["gap", 5_000], ["forget", 2]]);
});

test("the first try comes within a second, later ones are at most ten apart", () => {
  online();
  FakeSocket.last.drop();
  mock.timers.tick(1_000);
  assert.equal(FakeSocket.all.length, 2);
  for (let tries = 2; tries < 20; tries += 1) {
    FakeSocket.last.drop();
    mock.timers.tick(10_000);
    assert.equal(FakeSocket.all.length, tries + 1);
  }
});

test("waits grow: twenty tries do not happen in ten seconds", () => {
  FakeSocket.last.drop();
  for (let ms = 0; ms < 10_000; ms += 50) {
    if (FakeSocket.last.onclose) FakeSocket.last.drop();
    mock.timers.tick(50);
  }
  assert.ok(FakeSocket.all.length < 10, `${FakeSocket.all.length} tries`);
});

test("a server that lets us in only to send us away is not hammered", () => {
  for (let round = 0; round < 6; round += 1) {
    online();
    FakeSocket.last.drop(1013);
    mock.timers.tick(10_000);
  }
  const before = FakeSocket.all.length;
  online();
  FakeSocket.last.drop(1013);
  mock.timers.tick(4_000);
  assert.equal(FakeSocket.all.length, before);
});

test("when shown again or back on the network it does not wait", () => {
  online();
  FakeSocket.last.drop();
  connection.wake();
  assert.equal(FakeSocket.all.length, 2);
  FakeSocket.last.drop();
  connection.network(true);
  assert.equal(FakeSocket.all.length, 3);
});

test("without a network it says so and goes on trying, since the server may be on this very device", () => {
  online();
  connection.network(false);
  assert.equal(connection.state, "offline");
  mock.timers.tick(1_000);
  assert.equal(FakeSocket.all.length, 2);
  online();
  assert.equal(connection.state, "online");
});

test("after 30 s of silence it asks, and after 10 more it opens another connection", () => {
  online();
  const first = FakeSocket.last;
  mock.timers.tick(29_999);
  assert.deepEqual(first.of("ping"), []);
  mock.timers.tick(1);
  assert.equal(first.of("ping").length, 1);
  mock.timers.tick(9_999);
  assert.equal(FakeSocket.all.length, 1);
  mock.timers.tick(1);
  assert.equal(FakeSocket.all.length, 2);
  assert.ok(first.closed);
});

test("any frame counts as a sign of life", () => {
  online();
  mock.timers.tick(29_000);
  FakeSocket.last.receive({ type: "typing", username: "Bob" });
  mock.timers.tick(29_000);
  assert.deepEqual(FakeSocket.last.of("ping"), []);
  mock.timers.tick(1_000);
  FakeSocket.last.receive({ type: "pong" });
  mock.timers.tick(20_000);
  assert.equal(FakeSocket.all.length, 1);
});

test("whether the page is in sight is said when it changes, with every question, and to each connection", () => {
  connection.sight(true);
  online();
  const first = FakeSocket.last;
  assert.deepEqual(first.of("ping"), [{ in_sight: true }]);
  first.receive({ type: "pong" });
  connection.sight(true);
  connection.sight(false);
  connection.sight(true);
  assert.deepEqual(first.of("ping").slice(1), [{ in_sight: false }, { in_sight: true }]);
  first.receive({ type: "pong" });
  mock.timers.tick(30_000);
  assert.deepEqual(first.of("ping").slice(3), [{ in_sight: true }]);
  first.drop();
  mock.timers.tick(1_000);
  online();
  assert.deepEqual(FakeSocket.last.of("ping"), [{ in_sight: true }]);
});

test("when shown again it asks at once", () => {
  online();
  connection.wake();
  assert.equal(FakeSocket.last.of("ping").length, 1);
  mock.timers.tick(10_000);
  assert.equal(FakeSocket.all.length, 2);
});

test("a half-open socket is found by an unanswered message, though others are heard", () => {
  online();
  const nonce = write("is anyone there?");
  for (let second = 0; second < 10; second += 1) {
    assert.equal(FakeSocket.all.length, 1);
    FakeSocket.last.receive({ type: "typing", username: "Bob" });
    mock.timers.tick(1_000);
  }
  assert.equal(FakeSocket.all.length, 2);
  online();
  assert.deepEqual(FakeSocket.last.of("message"), [{ room: 1, content: "is anyone there?", nonce }]);
});

test("a connection that never gets anywhere is given up after 10 s", () => {
  mock.timers.tick(10_000);
  assert.ok(FakeSocket.all[0].closed);
  mock.timers.tick(1_000);
  assert.equal(FakeSocket.all.length, 2);
});

test("what is unacknowledged goes again under its nonce, in order, one after the other", () => {
  const nonces = ["one", "two", "three"].map(write);
  online();
  assert.deepEqual(FakeSocket.last.of("message").map(({ nonce }) => nonce), [nonces[0]]);
  FakeSocket.last.drop();
  mock.timers.tick(1_000);
  online();
  for (const [index, nonce] of nonces.entries()) {
    assert.deepEqual(FakeSocket.last.of("message").map(({ nonce }) => nonce), nonces.slice(0, index + 1));
    outbox.settle(nonce);
    FakeSocket.last.receive({ type: "ack", nonce, id: index + 1 });
  }
});

test("rate_limited waits as long as it says and keeps the order", () => {
  online();
  const [first, second] = ["one", "two"].map(write);
  FakeSocket.last.receive({ type: "error", code: "rate_limited", nonce: first, retry_after: 2_500 });
  mock.timers.tick(2_499);
  assert.equal(FakeSocket.last.of("message").length, 1);
  mock.timers.tick(1);
  assert.deepEqual(FakeSocket.last.of("message").map(({ nonce }) => nonce), [first, first]);
  outbox.settle(first);
  FakeSocket.last.receive({ type: "ack", nonce: first, id: 1 });
  assert.equal(FakeSocket.last.of("message").at(-1).nonce, second);
  assert.equal(outbox.entries[0].state, "pending");
});

test("unavailable is tried again by itself, and then the person is asked", () => {
  online();
  const nonce = write("hello");
  // Ten seconds in all, which is what a cluster may take to have another leader.
  for (const wait of [1_000, 2_000, 3_000, 4_000]) {
    FakeSocket.last.receive({ type: "error", code: "unavailable", nonce });
    assert.equal(outbox.entries[0].state, "pending");
    mock.timers.tick(wait);
  }
  assert.equal(FakeSocket.last.of("message").length, 5);
  FakeSocket.last.receive({ type: "error", code: "unavailable", nonce });
  assert.equal(outbox.entries[0].state, "failed");
  outbox.retry(nonce);
  assert.equal(FakeSocket.last.of("message").at(-1).nonce, nonce);
});

test("a refused message fails and does not hold up the next", () => {
  online();
  const [first, second] = ["bad", "good"].map(write);
  FakeSocket.last.receive({ type: "error", code: "invalid_message", message: "no", nonce: first });
  assert.deepEqual(outbox.entries.map(({ state }) => state), ["failed", "pending"]);
  assert.equal(FakeSocket.last.of("message").at(-1).nonce, second);
});

test("a refusal without a nonce is about the message on its way", () => {
  online();
  write("bad");
  FakeSocket.last.receive({ type: "error", code: "invalid_message", message: "no" });
  assert.equal(outbox.entries[0].state, "failed");
});

test("a dead session ends it for good; other failures do not", () => {
  FakeSocket.last.open();
  FakeSocket.last.receive({ type: "auth_failed", code: "unavailable", message: "" });
  FakeSocket.last.drop(1008);
  mock.timers.tick(1_000);
  assert.equal(FakeSocket.all.length, 2);
  FakeSocket.last.open();
  FakeSocket.last.receive({ type: "auth_failed", code: "unauthorized", message: "" });
  FakeSocket.last.drop(1008);
  mock.timers.tick(60_000);
  assert.equal(FakeSocket.all.length, 2);
  assert.deepEqual(heard.at(-1), ["ended", null]);
});

test("typing is sent at most every two seconds and only with a connection", () => {
  connection.typing(true);
  online();
  connection.typing(true);
  assert.equal(FakeSocket.last.of("typing").length, 1);
  mock.timers.tick(1_000);
  connection.typing(true);
  assert.equal(FakeSocket.last.of("typing").length, 1);
  mock.timers.tick(1_000);
  assert.equal(FakeSocket.last.of("typing").length, 2);
  mock.timers.tick(60_000);
  assert.equal(FakeSocket.last.of("typing").length, 2);
});

test("somebody who has sent the message is no longer typing", () => {
  online();
  connection.typing(true);
  connection.typing(true);
  connection.typing(false);
  mock.timers.tick(10_000);
  assert.equal(FakeSocket.last.of("typing").length, 1);
});

test("frames that make no sense are ignored", () => {
  online();
  for (const data of ["{", "null", "7", "[]", '{"type":"new_in_2030"}']) FakeSocket.last.onmessage({ data });
  assert.equal(connection.state, "online");
});

test("once stopped it is silent for ever", () => {
  online();
  connection.stop();
  write("too late");
  connection.wake();
  mock.timers.tick(120_000);
  assert.equal(FakeSocket.all.length, 1);
  assert.deepEqual(FakeSocket.last.of("message"), []);
});
