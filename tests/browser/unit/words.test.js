import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { inWords } from "../../../public/api.js";
import { Outbox, lengthOf, tidy } from "../../../public/composer.js";
import { dayInWords, splitAddresses } from "../../../public/log.js";
import { People, hueOf, typingInWords } from "../../../public/people.js";
import { FakeStore } from "./fakes.js";

const addresses = (text) => splitAddresses(text).filter(({ href }) => href !== null).map(({ text }) => text);

test("only http and https addresses are found, without closing punctuation", () => {
  for (const [text, found] of [
    ["see http://example.org.", ["http://example.org"]],
    ["(https://example.org/a_(b))", ["https://example.org/a_(b)"]],
    ["https://example.org/?q=1&r=2!?", ["https://example.org/?q=1&r=2"]],
    ["“https://example.org/”, he said", ["https://example.org/"]],
    ["https://a.example, https://b.example; https://c.example", ["https://a.example", "https://b.example", "https://c.example"]],
    ["HTTPS://EXAMPLE.ORG/X", ["HTTPS://EXAMPLE.ORG/X"]],
    ["看https://example.org/路径。好", ["https://example.org/路径。好"]],
    ["http://[::1]:8080/x", ["http://[::1]:8080/x"]],
    ["javascript:alert(1) data:text/html,x ftp://x file:///x //x www.example.org", []],
    ["http:// https://", []],
    ["xhttp://example.org", []],
    ["https://example.org/\u202Egpj.exe", ["https://example.org/"]],
    ["https://example.org/<script>", ["https://example.org/"]],
  ]) {
    assert.deepEqual(addresses(text), found, text);
  }
});

test("splitting loses nothing of the text", () => {
  for (const text of ["", "a", "http://x", " http://x. http://y) z", "((http://x))))", "🙂http://x🙂"]) {
    assert.equal(splitAddresses(text).map(({ text }) => text).join(""), text);
  }
});

test("four thousand closing brackets do not take long to tell from an address", () => {
  const text = `http://x/${"(".repeat(1_900)}${")".repeat(2_000)}`;
  const began = performance.now();
  assert.equal(addresses(text)[0].length, "http://x/".length + 3_800);
  assert.ok(performance.now() - began < 5_000);
});

test("days are named by the calendar, also over a change of the clocks", () => {
  const now = new Date(2025, 2, 30, 12).getTime();
  assert.equal(dayInWords(new Date(2025, 2, 30, 0, 1).getTime(), now), "Today");
  assert.equal(dayInWords(new Date(2025, 2, 29, 23, 59).getTime(), now), "Yesterday");
  assert.match(dayInWords(new Date(2025, 2, 28).getTime(), now), /28/);
  assert.match(dayInWords(new Date(2024, 11, 31).getTime(), now), /2024/);
});

test("characters are counted as the server counts them, after trimming", () => {
  assert.equal(lengthOf(tidy("  🙂🙂\n ")), 2);
  assert.equal(lengthOf(tidy("\ud800")), 1);
  assert.equal(lengthOf("e\u0301"), 2);
});

test("typing in words", () => {
  assert.equal(typingInWords([]), "");
  assert.equal(typingInWords(["Ada"]), "Ada is typing…");
  assert.equal(typingInWords(["Ada", "Bob"]), "Ada and Bob are typing…");
  assert.equal(typingInWords(["Ada", "Bob", "constructor"]), "Several people are typing…");
});

test("typing ends after six seconds of silence, and is never one's own", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const people = new People("Ada");
  people.take({ type: "typing", username: "Ada" });
  people.take({ type: "typing", username: "Bob" });
  mock.timers.tick(5_000);
  people.take({ type: "typing", username: "Bob" });
  mock.timers.tick(5_999);
  assert.deepEqual(people.typing, ["Bob"]);
  mock.timers.tick(1);
  assert.deepEqual(people.typing, []);
  mock.timers.reset();
});

test("names that are properties of every object are names", () => {
  const people = new People("__proto__");
  people.take({ type: "auth_success", online: 1, users: ["__proto__"] });
  people.take({ type: "user_join", username: "__proto__" });
  people.take({ type: "user_join", username: "constructor" });
  people.take({ type: "user_join", username: "constructor" });
  people.take({ type: "user_join", username: "toString" });
  people.take({ type: "user_leave", username: "toString" });
  assert.deepEqual(people.names, ["__proto__", "constructor"]);
  assert.equal(people.online, 2);
});

test("a presence with users replaces the list, one without only counts", () => {
  const people = new People("Ada");
  people.take({ type: "presence", online: 2, users: ["Ada", "Bob"] });
  people.take({ type: "presence", online: 1_200 });
  assert.deepEqual([people.online, people.names], [1_200, ["Ada", "Bob"]]);
});

test("similar names differ in colour", () => {
  assert.equal(hueOf("Ada"), hueOf("Ada"));
  assert.ok(new Set(["user1", "user2", "user3", "user4"].map(hueOf)).size > 2);
});

test("a wait is told in seconds", () => {
  assert.match(inWords({ code: "rate_limited", retryAfter: 1 }), /1 second,/);
  assert.match(inWords({ code: "rate_limited", retryAfter: 12 }), /12 seconds,/);
});

test("the outbox survives a reload with its nonces, and after a day asks before it sends", () => {
  const store = new FakeStore();
  const first = new Outbox(store, "key");
  const { nonce } = first.add("hello", "Ada", 0);
  assert.equal(new Outbox(store, "key").next().nonce, nonce);
  const entries = store.get("key");
  entries[0].created_at -= 25 * 60 * 60 * 1000;
  store.set("key", entries);
  assert.equal(new Outbox(store, "key").entries[0].state, "failed");
});

test("a retry keeps its nonce", () => {
  const outbox = new Outbox(new FakeStore(), "key");
  const { nonce } = outbox.add("hello", "Ada", 0);
  outbox.refuse(nonce, { code: "invalid_message" });
  outbox.retry(nonce);
  assert.deepEqual(outbox.entries.map((entry) => [entry.nonce, entry.state]), [[nonce, "pending"]]);
});
