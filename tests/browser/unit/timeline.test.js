import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Outbox } from "../../../public/store/outbox.js";
import { PAGE, Timeline, WINDOW } from "../../../public/store/timeline.js";
import { FakeHistory, FakeStore, message, settled } from "./fakes.js";

let outbox;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  outbox = new Outbox(new FakeStore(), "outbox");
});

const on = (history) => new Timeline({ fetchPage: history.page, outbox });
const ids = (timeline) => timeline.messages.map(({ id }) => id);
const shown = (timeline) => [...timeline.items()].map(({ id, nonce, state }) => (state ? nonce : id));
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

/** A message is stored and then delivered. */
const live = (timeline, history, stored) => timeline.receive(history.store(stored));

test("an empty room begins, and its first message is shown", async () => {
  const history = new FakeHistory();
  const timeline = on(history);
  await timeline.forget(0);
  assert.equal(timeline.hasOlder, false);
  live(timeline, history, message(1));
  assert.deepEqual(ids(timeline), [1]);
});

test("the first message of all may arrive while the empty page is read", async () => {
  const history = new FakeHistory();
  const timeline = on(history);
  history.held = true;
  const done = timeline.forget(0);
  live(timeline, history, message(1));
  await history.release();
  await done;
  live(timeline, history, message(2));
  assert.deepEqual(ids(timeline), [1, 2]);
});

test("showing the end of an empty room asks nobody", async () => {
  const history = new FakeHistory();
  const timeline = on(history);
  await timeline.forget(0);
  history.requests = [];
  await timeline.showLatest();
  live(timeline, history, message(1));
  assert.deepEqual([ids(timeline), history.requests], [[1], []]);
});

test("live messages that arrive while the first page is read are neither lost nor doubled", async () => {
  const history = new FakeHistory(80);
  const timeline = on(history);
  history.held = true;
  const done = timeline.forget(80);
  for (const id of [81, 82, 83]) live(timeline, history, message(id));
  await history.release();
  await done;
  live(timeline, history, message(84));
  assert.deepEqual(ids(timeline), range(81 - PAGE, 84));
});

test("live messages that arrive while resync pages are read come after them", async () => {
  const history = new FakeHistory(100);
  const timeline = on(history);
  await timeline.forget(100);
  for (const id of range(101, 350)) history.store(message(id));
  history.held = true;
  const done = timeline.missed(100, 350);
  live(timeline, history, message(351));
  await history.release();
  live(timeline, history, message(352));
  await done;
  assert.deepEqual(ids(timeline).slice(-252), range(101, 352));
});

test("a resync is read to its end though the server answers in holes", async () => {
  const history = new FakeHistory(10);
  const timeline = on(history);
  await timeline.forget(10);
  history.store(message(15));
  await timeline.missed(10, 20);
  assert.deepEqual(ids(timeline).slice(-2), [10, 15]);
  assert.ok(timeline.attached);
});

test("too wide a gap is not read through", async () => {
  const history = new FakeHistory(100);
  const timeline = on(history);
  await timeline.forget(100);
  for (const id of range(101, 9_000)) history.store(message(id));
  history.requests = [];
  await timeline.missed(100, 9_000);
  assert.equal(history.requests.length, 1);
  assert.equal(ids(timeline).at(-1), 9_000);
  assert.ok(timeline.hasOlder);
});

test("an ack that ran ahead of the deliveries leaves no hole behind a resync", async () => {
  const history = new FakeHistory(10);
  const timeline = on(history);
  await timeline.forget(10);
  const { nonce } = outbox.add({ content: "mine", username: "Ada", after: 10 });
  for (const id of range(11, 19)) history.store(message(id));
  history.store(message(20, "Ada", "mine"));
  timeline.acknowledge(nonce, 20);
  await timeline.missed(10, 20);
  assert.deepEqual(ids(timeline), range(1, 20));
});

test("ack first, then one's own message: shown once, in its place", async () => {
  const history = new FakeHistory(3);
  const timeline = on(history);
  await timeline.forget(3);
  const { nonce } = outbox.add({ content: "mine", username: "Ada", after: 3 });
  assert.deepEqual(shown(timeline), [1, 2, 3, nonce]);
  timeline.acknowledge(nonce, 6);
  for (const id of [4, 5]) live(timeline, history, message(id, "Bob"));
  live(timeline, history, message(6, "Ada", "mine"));
  assert.deepEqual(shown(timeline), [1, 2, 3, 4, 5, 6]);
  assert.equal(timeline.messages.at(-1).nonce, nonce);
});

test("one's own message first, then the ack: never shown twice", async () => {
  const history = new FakeHistory(3);
  const timeline = on(history);
  await timeline.forget(3);
  const { nonce } = outbox.add({ content: "mine", username: "Ada", after: 3 });
  live(timeline, history, message(4, "Ada", "mine"));
  assert.deepEqual(shown(timeline), [1, 2, 3, nonce]);
  live(timeline, history, message(5, "Bob"));
  timeline.acknowledge(nonce, 4);
  assert.deepEqual(shown(timeline), [1, 2, 3, 4, 5]);
});

test("an ack that comes a second time, because another tab sent the entry too, takes nothing back", async () => {
  const history = new FakeHistory(3);
  const timeline = on(history);
  await timeline.forget(3);
  const entries = [1, 2].map(() => outbox.add({ content: "mine", username: "Ada", after: 3 }));
  timeline.acknowledge(entries[0].nonce, 4);
  const stored = history.store({ ...message(4, "Ada", "mine"), created_at: 7 });
  timeline.receive(stored);
  timeline.edit({ message: 4, content: "better", edited_at: 9 });
  timeline.acknowledge(entries[1].nonce, 4);
  assert.deepEqual(shown(timeline), [1, 2, 3, 4]);
  const { content, created_at } = timeline.messages.at(-1);
  assert.deepEqual({ content, created_at }, { content: "better", created_at: 7 });
});

test("the same words sent from two tabs are two messages in both", async () => {
  const history = new FakeHistory(1);
  const timeline = on(history);
  await timeline.forget(1);
  const { nonce } = outbox.add({ content: "hi", username: "Ada", after: 1 });
  live(timeline, history, message(2, "Ada", "hi"));
  timeline.acknowledge(nonce, 3);
  live(timeline, history, message(3, "Ada", "hi"));
  assert.deepEqual(shown(timeline), [1, 2, 3]);
});

test("what was said before in the same words stays in sight while they are sent again", async () => {
  const history = new FakeHistory(0);
  history.store(message(1, "Ada", "hi"));
  const { nonce } = outbox.add({ content: "hi", username: "Ada", after: 1 });
  const timeline = on(history);
  await timeline.forget(1);
  assert.deepEqual(shown(timeline), [1, nonce]);
});

test("after a reload a message that was stored unacknowledged is not seen twice", async () => {
  const history = new FakeHistory(1);
  const { nonce } = outbox.add({ content: "mine", username: "Ada", after: 1 });
  history.store(message(2, "Ada", "mine"));
  const timeline = on(history);
  await timeline.forget(2);
  assert.deepEqual(shown(timeline), [1, nonce]);
  timeline.acknowledge(nonce, 2);
  assert.deepEqual(shown(timeline), [1, 2]);
});

test("a refusal sets free what was held for it", async () => {
  const history = new FakeHistory(1);
  const timeline = on(history);
  await timeline.forget(1);
  const { nonce } = outbox.add({ content: "mine", username: "Ada", after: 1 });
  live(timeline, history, message(2, "Ada", "mine"));
  outbox.refuse(nonce, { code: "unavailable" });
  assert.deepEqual(shown(timeline), [1, 2, nonce]);
});

test("the window is bounded while the end is followed", async () => {
  const history = new FakeHistory(50);
  const timeline = on(history);
  await timeline.forget(50);
  for (const id of range(51, 2_000)) live(timeline, history, message(id));
  assert.deepEqual(ids(timeline), range(2_001 - WINDOW, 2_000));
  assert.ok(timeline.hasOlder);
});

test("scrolled back to the first message and forth again, all is there once and the window stays bounded", async () => {
  const history = new FakeHistory(5_000);
  const timeline = on(history);
  await timeline.forget(5_000);
  timeline.following = false;
  const seen = new Set(ids(timeline));
  while (timeline.hasOlder) {
    await timeline.loadOlder();
    for (const id of ids(timeline)) seen.add(id);
    assert.ok(timeline.messages.length <= WINDOW);
    assert.deepEqual(ids(timeline), range(ids(timeline)[0], ids(timeline).at(-1)));
  }
  assert.equal(seen.size, 5_000);
  live(timeline, history, message(5_001));
  while (!timeline.attached) {
    await timeline.loadNewer();
    assert.deepEqual(ids(timeline), range(ids(timeline)[0], ids(timeline).at(-1)));
  }
  assert.equal(ids(timeline).at(-1), 5_001);
});

test("a reader further up is not flooded, and finds everything on the way down", async () => {
  const history = new FakeHistory(50);
  const timeline = on(history);
  await timeline.forget(50);
  timeline.following = false;
  for (const id of range(51, 3_000)) live(timeline, history, message(id));
  assert.equal(ids(timeline)[0], 1);
  assert.ok(timeline.messages.length <= 2 * WINDOW);
  await timeline.showLatest();
  assert.equal(ids(timeline).at(-1), 3_000);
  live(timeline, history, message(3_001));
  assert.equal(ids(timeline).at(-1), 3_001);
});

test("a page asked for before everything was forgotten is not put into the new window", async () => {
  const history = new FakeHistory(500);
  const timeline = on(history);
  await timeline.forget(500);
  history.held = true;
  timeline.following = false;
  const older = timeline.loadOlder();
  const forgotten = timeline.forget(500);
  await history.release();
  await Promise.all([older, forgotten]);
  assert.deepEqual(ids(timeline), range(501 - PAGE, 500));
});

test("a page that could not be had is asked for again by itself", async () => {
  const history = new FakeHistory(20);
  const timeline = on(history);
  history.broken = true;
  await timeline.forget(20);
  assert.ok(timeline.failed);
  history.broken = false;
  mock.timers.tick(3_000);
  await settled();
  assert.deepEqual(ids(timeline), range(1, 20));
});

test("once closed it asks for nothing", async () => {
  const history = new FakeHistory(20);
  const timeline = on(history);
  history.broken = true;
  await timeline.forget(20);
  history.requests = [];
  timeline.close();
  mock.timers.tick(60_000);
  await settled();
  assert.deepEqual(history.requests, []);
});

test("missed messages count as new once", async () => {
  const history = new FakeHistory(10);
  const timeline = on(history);
  let arrived = 0;
  timeline.addEventListener("arrived", ({ detail }) => (arrived += detail.length));
  await timeline.forget(10);
  assert.equal(arrived, 0);
  for (const id of range(11, 250)) history.store(message(id));
  await timeline.missed(10, 250);
  live(timeline, history, message(251));
  assert.equal(arrived, 241);
});

test("an edit and a delete change what is shown, and the quotes of it", async () => {
  const history = new FakeHistory(2);
  history.store({ ...message(3, "Bob"), reply_to: { id: 2, username: "Ada", content: "message 2" } });
  const timeline = on(history);
  await timeline.forget(3);
  timeline.edit({ id: 4, message: 2, content: "edited", edited_at: 9_000 });
  assert.deepEqual([timeline.find(2).content, timeline.find(2).edited_at, timeline.find(3).reply_to.content], ["edited", 9_000, "edited"]);
  timeline.delete({ id: 5, message: 2, by: "Ada" });
  assert.deepEqual(ids(timeline), [1, 3]);
  assert.deepEqual(timeline.find(3).reply_to, { id: 2 });
  timeline.edit({ id: 6, message: 2, content: "too late", edited_at: 9_500 });
  assert.deepEqual(ids(timeline), [1, 3]);
});

test("a page that was read before an edit or a delete brings nothing back", async () => {
  const history = new FakeHistory(3);
  const timeline = on(history);
  history.held = true;
  const done = timeline.forget(3);
  timeline.delete({ id: 4, message: 1, by: "Ada" });
  timeline.edit({ id: 5, message: 2, content: "edited", edited_at: 9_000 });
  await history.release();
  await done;
  assert.deepEqual(timeline.messages.map(({ id, content }) => [id, content]), [[2, "edited"], [3, "message 3"]]);
});

test("reactions are counted once a person and emoji, and gone with the last", async () => {
  const history = new FakeHistory(1);
  const timeline = new Timeline({ fetchPage: history.page, outbox, self: "Ada" });
  await timeline.forget(1);
  const react = (username, on, emoji = "👍") => timeline.react({ message: 1, username, emoji, on });
  for (const name of ["Bob", "Bob", "Ada", "constructor"]) react(name, true);
  assert.deepEqual(timeline.find(1).reactions, [{ emoji: "👍", count: 3, mine: true, names: ["Bob", "Ada", "constructor"] }]);
  react("Ada", false);
  react("Ada", false);
  assert.deepEqual(timeline.find(1).reactions, [{ emoji: "👍", count: 2, mine: false, names: ["Bob", "constructor"] }]);
  react("Bob", false);
  react("constructor", false);
  assert.deepEqual(timeline.find(1).reactions, []);
});

test("after a resync what is shown is read again: deletes are not told", async () => {
  const history = new FakeHistory(10);
  const timeline = on(history);
  await timeline.forget(10);
  history.forget(4);
  history.store(message(11));
  await timeline.missed(10, 11);
  assert.deepEqual(ids(timeline), [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
});

test("one message of another shape costs itself only", async () => {
  const history = new FakeHistory(1);
  for (const odd of [null, 7, {}, { ...message(2), content: 7 }, { ...message(3), created_at: 1e300 }]) history.store(odd);
  history.store(message(4));
  const timeline = on(history);
  await timeline.forget(4);
  assert.deepEqual(ids(timeline), [1, 4]);
});
