import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { inWords } from "../../../public/api.js";
import { dayInWords } from "../../../public/i18n/index.js";
import { Outbox } from "../../../public/store/outbox.js";
import { People } from "../../../public/store/people.js";
import { lengthOf, tidy } from "../../../public/view/composer.js";
import { hueOf } from "../../../public/view/dom.js";
import { typingInWords } from "../../../public/view/rooms-nav.js";
import { parse, plain, unpiled } from "../../../public/view/text.js";
import { FakeStore } from "./fakes.js";

const addresses = (text) => parse(text).filter(({ kind }) => kind === "link").map(({ text }) => text);

test("addresses are found, without the closing punctuation of any language", () => {
  for (const [text, found] of [
    ["see http://example.org.", ["http://example.org"]],
    ["(https://example.org/a_(b))", ["https://example.org/a_(b)"]],
    ["https://example.org/?q=1&r=2!?", ["https://example.org/?q=1&r=2"]],
    ["“https://example.org/”, he said", ["https://example.org/"]],
    ["https://a.example, https://b.example; https://c.example", ["https://a.example", "https://b.example", "https://c.example"]],
    ["HTTPS://EXAMPLE.ORG/X", ["HTTPS://EXAMPLE.ORG/X"]],
    ["看https://example.org/路径。好", ["https://example.org/路径。好"]],
    ["http://[::1]:8080/x", ["http://[::1]:8080/x"]],
    ["javascript:alert(1) data:text/html,x ftp://x file:///x //x", []],
    ["https://example.com，谢谢", ["https://example.com"]],
    ["「https://example.jp/a」です", ["https://example.jp/a"]],
    ["„https://example.de/a“", ["https://example.de/a"]],
    ["https://example.com/a،", ["https://example.com/a"]],
    ["**https://example.com/1**", ["https://example.com/1"]],
    ["see www.example.org, or write to ada.l@example.org.", ["www.example.org", "ada.l@example.org"]],
    ["call +49 (0)30 1234567 or 030 1234567.", ["+49 (0)30 1234567", "030 1234567"]],
    ["2025-11-28 10:30, 01-02-2025, 127.0.0.1, 0.0.0.0, 3.14159265", []],
    // What is opened would be another host than what is shown.
    ["http://0x7f.1/ http://bank.example@evil.example/ https://ｅxample.com/", []],
    ["`https://a.example` and ```\nhttps://b.example\n```", []],
    [`https://example.org/${"x".repeat(2_100)}`, []],
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
    assert.equal(parse(text).map(({ text }) => text).join(""), text);
  }
});

test("thousands of brackets are told from an address", () => {
  assert.deepEqual(addresses(`http://a${")".repeat(3_990)}`), []);
  const text = `http://x/${"(".repeat(950)}${")".repeat(1_000)}`;
  assert.equal(addresses(text)[0].length, "http://x/".length + 1_900);
});

test("no more accents are shown on one letter than any script has", () => {
  const pile = (count) => `a${"\u0301".repeat(count)}`;
  for (const shown of [unpiled, plain]) assert.equal(shown(`${pile(3_999)} ${pile(3)} \u05e9\u05bc\u05c1\u05b8`), `${pile(16)} ${pile(3)} \u05e9\u05bc\u05c1\u05b8`);
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
  assert.deepEqual(people.typing(), ["Bob"]);
  mock.timers.tick(1);
  assert.deepEqual(people.typing(), []);
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

test("a presence with users replaces the list, and one without leaves no names that may have gone", () => {
  const people = new People("Ada");
  people.take({ type: "presence", online: 2, users: ["Ada", "Bob"] });
  people.take({ type: "presence", online: 1_200 });
  assert.deepEqual([people.online, people.names], [1_200, ["Ada"]]);
});

test("where not all can be named, one's own name is among those that are", () => {
  const people = new People("Zoe");
  people.take({ type: "presence", online: 301, users: Array.from({ length: 200 }, (_, n) => `user${n}`) });
  assert.equal(people.online, 301);
  assert.ok(people.names.includes("Zoe"));
});

test("the list is not made anew because somebody types", () => {
  const people = new People("Ada");
  const told = [];
  for (const type of ["change", "typing"]) people.addEventListener(type, () => told.push(type));
  people.take({ type: "typing", username: "Bob" });
  people.silent("Bob");
  assert.deepEqual(told, ["typing", "typing"]);
});

test("similar names differ in colour", () => {
  assert.equal(hueOf("Ada"), hueOf("Ada"));
  const hues = Array.from({ length: 9 }, (_, n) => hueOf(`pupil${n + 1}`)).sort((a, b) => a - b);
  for (const [index, hue] of hues.entries()) assert.ok(index === 0 || hue > hues[index - 1], `${hues}`);
  // Nine that only differ may still be nine shades of one colour.
  assert.ok(new Set(hues.map((hue) => Math.floor(hue / 60))).size >= 4, `${hues}`);
});

test("a wait is told in seconds", () => {
  assert.match(inWords({ code: "rate_limited", retryAfter: 1 }), /1 second,/);
  assert.match(inWords({ code: "rate_limited", retryAfter: 12 }), /12 seconds,/);
});

test("the outbox survives a reload with its nonces, and after a day asks before it sends", () => {
  const store = new FakeStore();
  const first = new Outbox(store, "key");
  const { nonce } = first.add({ content: "hello", username: "Ada", after: 0 });
  assert.equal(new Outbox(store, "key").next().nonce, nonce);
  const entry = store.get(`key${nonce}`);
  store.set(`key${nonce}`, { ...entry, created_at: entry.created_at - 25 * 60 * 60 * 1000 });
  assert.equal(new Outbox(store, "key").entries[0].state, "failed");
});

test("a retry keeps its nonce", () => {
  const outbox = new Outbox(new FakeStore(), "key");
  const { nonce } = outbox.add({ content: "hello", username: "Ada", after: 0 });
  outbox.refuse(nonce, { code: "invalid_message" });
  outbox.retry(nonce);
  assert.deepEqual(outbox.entries.map((entry) => [entry.nonce, entry.state]), [[nonce, "pending"]]);
});

test("in a line or two of a text there are no marks of code", () => {
  for (const [text, shown] of [["a `b` c", "a b c"], ["```js\na();\n```", "a();"], ["a ` b", "a ` b"], ["no code", "no code"]]) assert.equal(plain(text), shown);
});
