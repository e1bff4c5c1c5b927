// What is known of rooms, of what is not sent yet, and of addresses.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { addressOf, parse } from "../../../public/router.js";
import { Session } from "../../../public/session.js";
import { Drafts, Outbox } from "../../../public/store/outbox.js";
import { Prefs, Store } from "../../../public/store/prefs.js";
import { Recent } from "../../../public/store/recent.js";
import { Rooms } from "../../../public/store/rooms.js";
import { FakeStore, LateStore, message } from "./fakes.js";

const DAY_MS = 24 * 60 * 60 * 1000;

let rooms;

const room = (id, rest = {}) => ({ id, kind: "open", name: `room ${id}`, topic: "", members: null, archived: false, last: null, read: 0, unread: 0, mentioned: 0, ...rest });
const said = (id, username, rest = {}) => ({ ...message(id, username), room: 1, ...rest });

beforeEach(() => {
  rooms = new Rooms("Ada");
  rooms.load([room(1), room(2)]);
});

test("messages of others are unread until they are read, one's own never", () => {
  rooms.message(said(5, "Bob"));
  rooms.message(said(6, "Ada"));
  rooms.message(said(7, "Bob", { mentions: ["Ada"] }));
  assert.deepEqual([rooms.get(1).unread, rooms.get(1).mentioned, rooms.unread], [2, 1, 2]);
  const seen = [];
  rooms.addEventListener("seen", ({ detail }) => seen.push(detail));
  rooms.markRead(1, 7);
  assert.deepEqual([rooms.get(1).unread, rooms.get(1).mentioned], [0, 0]);
  assert.deepEqual(seen, [{ room: 1, id: 7 }]);
});

test("what was read stays read, whatever the server knew of it when it told of the room", () => {
  rooms.message(said(5, "Bob"));
  rooms.markRead(1, 5);
  rooms.take(room(1, { name: "renamed", last: said(5, "Bob"), read: 0, unread: 1 }));
  assert.deepEqual([rooms.get(1).name, rooms.get(1).unread], ["renamed", 0]);
});

test("another device's reading counts, and what only the server knows is asked for", () => {
  rooms.message(said(5, "Bob"));
  rooms.message(said(6, "Bob"));
  let stale = 0;
  rooms.addEventListener("stale", () => (stale += 1));
  rooms.read({ room: 1, id: 5 });
  assert.deepEqual([rooms.get(1).unread, stale], [2, 1]);
  rooms.read({ room: 1, id: 6 });
  assert.deepEqual([rooms.get(1).unread, stale], [0, 1]);
});

test("a silenced room does not count in the title", () => {
  rooms.message(said(5, "Bob"));
  rooms.setNotify(1, "nothing");
  assert.equal(rooms.unread, 0);
});

test("a room of another shape costs itself only", () => {
  rooms.load([null, 7, {}, { id: "1", kind: "open" }, room(3, { kind: "secret" }), room(4, { unread: -1, last: { id: 3 }, members: 5 })]);
  assert.deepEqual(rooms.all.map(({ id, unread, last, members }) => [id, unread, last, members]), [[4, 0, null, null]]);
});

test("a conversation is named after the other, and one alone after what it is for", () => {
  assert.equal(rooms.nameOf(room(3, { kind: "direct", name: null, members: ["Ada", "constructor"] })), "constructor");
  assert.equal(rooms.nameOf(room(3, { kind: "direct", name: null, members: ["Ada"] })), "Notes to yourself");
  assert.equal(rooms.nameOf(room(1, { name: null })), "Lobby");
});

test("what is stored in the browser is outside input: a bad entry of the outbox costs itself only", () => {
  const store = new FakeStore();
  const good = { content: "hello", username: "Ada", created_at: Date.now(), state: "pending" };
  store.set("key/n", { ...good, nonce: "another" });
  const bad = [{ state: "odd" }, { created_at: "soon" }, { created_at: 1e300 }, { content: "x".repeat(100_000) }].map((wrong) => ({ ...good, ...wrong }));
  for (const [index, odd] of [null, 7, "text", [good], {}, ...bad].entries()) store.set(`key/${index}`, odd);
  store.set("key", good);
  const outbox = new Outbox(store, "key/");
  assert.deepEqual(outbox.entries.map(({ nonce, room }) => [nonce, room]), [["n", 1]]);
  outbox.settle("n");
  assert.deepEqual(outbox.entries, []);
});

test("what is stored beyond the outbox's bound waits until there is room", () => {
  const store = new FakeStore();
  for (let n = 0; n < 502; n += 1) store.set(`key/${n}`, { content: `${n}`, username: "Ada", created_at: Date.now(), order: n, state: "failed" });
  const outbox = new Outbox(store, "key/");
  assert.deepEqual([outbox.entries.length, outbox.full, outbox.entries.at(-1).content], [500, true, "499"]);
  for (const nonce of ["0", "1", "2"]) outbox.settle(nonce);
  assert.deepEqual([outbox.entries.length, outbox.full, outbox.entries.at(-1).content], [499, false, "501"]);
});

test("what a closed tab has left is sent by another, after a while", () => {
  const store = new FakeStore();
  const { nonce } = new Outbox(store, "key", "closed").add({ content: "hello", username: "Ada", after: 0 });
  const other = new Outbox(store, "key", "open");
  assert.equal(other.next(), undefined);
  const wait = other.waitFor();
  assert.ok(wait > 0);
  assert.equal(other.next(Date.now() + wait).nonce, nonce);
});

test("tabs that see late what the other wrote lose nothing and bring nothing back", () => {
  const stores = LateStore.pair();
  const [first, second] = ["a", "b"].map((tab, index) => new Outbox(stores[index], "key/", tab));
  const { nonce } = first.add({ content: "settled", username: "Ada", after: 0 });
  LateStore.deliver();
  first.settle(nonce);
  first.add({ content: "of the first", username: "Ada", after: 0 });
  second.add({ content: "of the second", username: "Ada", after: 0 });
  LateStore.deliver();
  for (const store of stores) {
    assert.deepEqual(new Outbox(store, "key/").entries.map(({ content }) => content).sort(), ["of the first", "of the second"]);
  }
});

test("what another tab has settled stays so, though this one's own try is refused", (t) => {
  const heard = [];
  globalThis.addEventListener = (_, listener) => heard.push(listener);
  t.after(() => delete globalThis.addEventListener);
  const store = new FakeStore();
  const outbox = new Outbox(store, "key/");
  const { nonce } = outbox.add({ content: "stored", username: "Ada", after: 0 });
  const { nonce: mine } = outbox.add({ content: "refused", username: "Ada", after: 0 });
  for (const refused of [nonce, mine]) outbox.refuse(refused, { code: "unavailable" });
  for (const listener of heard) listener({ key: `key/${nonce}`, newValue: null });
  assert.deepEqual(outbox.entries.map(({ content }) => content), ["refused"]);
  assert.deepEqual(new Outbox(store, "key/").entries.map(({ content }) => content), ["refused"]);
});

test("of two tabs that choose at once neither undoes what the other chose", () => {
  const stores = LateStore.pair();
  const [first, second] = stores.map((store) => new Prefs(store));
  first.set("theme", "dark");
  second.set("language", "de");
  LateStore.deliver();
  for (const prefs of [first, second]) assert.deepEqual(["theme", "language", "clock"].map((name) => prefs.get(name)), ["dark", "de", null]);
  first.set("theme", null);
  LateStore.deliver();
  assert.equal(second.get("theme"), null);
});

test("what was chosen in a version that kept it all together is still chosen", () => {
  const store = new FakeStore();
  store.set("chinwag.prefs", { theme: "dark", notify: true });
  const prefs = new Prefs(store);
  assert.deepEqual([prefs.get("theme"), prefs.get("notify")], ["dark", true]);
  prefs.set("theme", "light");
  assert.equal(new Prefs(store).get("theme"), "light");
});

test("of two sessions that end at once without a server both are ended there later", async (t) => {
  const fetch = t.mock.method(globalThis, "fetch", () => Promise.reject(new TypeError("no network")));
  const stores = LateStore.pair();
  const sessions = stores.map((store, index) => {
    store.set("chinwag.session", { token: `token ${index}`, username: "Ada" });
    return new Session(store);
  });
  await Promise.all(sessions.map((session) => session.logOut()));
  LateStore.deliver();
  for (const store of stores) assert.equal(JSON.stringify([...store.items].sort()).match(/token \d/g)?.join(), "token 0,token 1");
  const told = [];
  fetch.mock.mockImplementation(async (_, { headers }) => {
    told.push(headers["Chinwag-Token"]);
    return new Response(null, { status: 204 });
  });
  await sessions[0].tellOfLeaving();
  assert.deepEqual(told.sort(), ["token 0", "token 1"]);
  assert.deepEqual(stores[0].keys("chinwag.left"), []);
});

test("sessions that ended without a server before an upgrade of the page are ended after it", async (t) => {
  const told = [];
  t.mock.method(globalThis, "fetch", async (_, { headers }) => {
    told.push(headers["Chinwag-Token"]);
    return new Response(null, { status: 204 });
  });
  for (const [left, tokens] of [[["one", { no: "token" }, "two"], ["one", "two"]], ["three", ["three"]]]) {
    const store = new FakeStore();
    store.set("chinwag.left", left);
    await new Session(store).tellOfLeaving();
    assert.deepEqual(told.splice(0).filter((token, at, all) => all.indexOf(token) === at), tokens);
    assert.deepEqual(store.keys("chinwag.left"), []);
  }
});

test("of emoji that two tabs use at once neither is lost, and the last used come first, so many of them", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 5_000 });
  const known = new Set("abcdefghijklmnopqrstuvwxyz");
  const stores = LateStore.pair();
  stores.forEach((store, index) => new Recent(known, store).use("ab"[index]));
  LateStore.deliver();
  for (const store of stores) assert.deepEqual(new Recent(known, store).all.sort(), ["a", "b"]);
  const recent = new Recent(known, stores[0]);
  t.mock.timers.setTime(1_000);
  for (const emoji of known) recent.use(emoji);
  assert.equal(recent.all.join(""), "zyxwvutsrqponmlk");
  assert.equal(stores[0].keys("chinwag.emoji").length, 16);
});

test("the emoji used last before an upgrade of the page are so after it", () => {
  const store = new FakeStore();
  store.set("chinwag.emoji", ["", {}, "c", "words", "a", 7, "b"]);
  for (let times = 0; times < 2; times += 1) assert.deepEqual(new Recent(new Set("abc"), store).all, ["c", "a", "b"]);
  assert.equal(store.get("chinwag.emoji"), null);
});

test("what one tab writes keeps its order, whatever its clock does", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 2_000_000 });
  const store = new FakeStore();
  const outbox = new Outbox(store, "key/");
  for (const [now, content] of [[2_000_000, "one"], [2_000_000, "two"], [1_000_000, "three"]]) {
    t.mock.timers.setTime(now);
    outbox.add({ content, username: "Ada", after: 0 });
  }
  assert.deepEqual(new Outbox(store, "key/").entries.map(({ content }) => content), ["one", "two", "three"]);
});

test("logging out leaves nothing, and takes nothing of another person's", () => {
  const store = new FakeStore();
  const [ada, adaToo] = ["Ada/", "Ada.too/"].map((prefix) => new Outbox(store, prefix));
  for (const outbox of [ada, adaToo]) outbox.add({ content: "hello", username: "Ada", after: 0 });
  ada.clear();
  assert.deepEqual([ada, adaToo, new Outbox(store, "Ada/"), new Outbox(store, "Ada.too/")].map(({ entries }) => entries.length), [0, 1, 0, 1]);
});

test("a tab that slept for days asks before it sends", () => {
  const outbox = new Outbox(new FakeStore(), "key");
  const { nonce } = outbox.add({ content: "hello", username: "Ada", after: 0 });
  assert.equal(outbox.next(Date.now() + DAY_MS), undefined);
  assert.deepEqual(outbox.entries.map(({ state, reason }) => [state, reason.code]), [["failed", "stale"]]);
  outbox.retry(nonce);
  assert.equal(outbox.next().nonce, nonce);
});

test("an entry belongs to its room", () => {
  const outbox = new Outbox(new FakeStore(), "key");
  outbox.add({ room: 2, content: "hello", username: "Ada", after: 3 });
  assert.equal(outbox.in(1).length, 0);
  assert.equal(outbox.expects({ id: 4, username: "Ada", content: "hello", room: 1 }), false);
  assert.equal(outbox.expects({ id: 4, username: "Ada", content: "hello", room: 2 }), true);
});

test("a draft is this tab's, and for a new tab the one written last", () => {
  const kept = new FakeStore();
  const tabs = [0, 1, 2].map(() => new Drafts(new FakeStore(), kept, "draft."));
  tabs[0].set(1, "first");
  tabs[1].set(1, "second");
  assert.deepEqual(tabs.map((drafts) => drafts.get(1)), ["first", "second", "second"]);
  assert.equal(tabs[0].get(2), "");
  tabs[1].set(1, "");
  assert.equal(tabs[2].get(1), "");
  kept.set("draft.1", { not: "a text" });
  assert.equal(tabs[2].get(1), "");
});

test("where storage is full, what was set last counts all the same, and once", (t) => {
  const items = new Map([["a.1", "1"]]);
  const area = { getItem: (key) => items.get(key) ?? null, key: (index) => [...items.keys()][index], removeItem: (key) => items.delete(key), length: 1 };
  globalThis.fullArea = { ...area, setItem: () => { throw new Error("full"); } };
  t.after(() => delete globalThis.fullArea);
  const store = new Store("fullArea");
  store.set("a.1", 2);
  assert.deepEqual([store.get("a.1"), store.keys("a.")], [2, ["a.1"]]);
  store.delete("a.1");
  assert.equal(store.get("a.1"), null);
});

test("addresses of rooms and messages", () => {
  assert.deepEqual(parse("#/room/3"), { room: 3, message: null });
  assert.deepEqual(parse("#/room/3/m/123"), { room: 3, message: 123 });
  for (const hash of ["", "#", "#invite=x", "#/room/", "#/room/-1", "#/room/1x", "#/room/3/m/", "#/room/99999999999999999999"]) assert.equal(parse(hash), null);
  assert.deepEqual([addressOf(3), addressOf(3, 5)], ["#/room/3", "#/room/3/m/5"]);
});
