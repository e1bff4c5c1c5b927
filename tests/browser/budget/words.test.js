// What it costs to split a message into its parts: in a flood every reader pays it for every message.

import assert from "node:assert/strict";
import { test } from "node:test";

import { parse } from "../../../public/view/text.js";

/** What is linear takes this many times as long for a text as many times as long, what is quadratic the square of it. */
const LONGER = 16;
/** Far from the one, so that a busy machine is not mistaken for a slow function, and under the other. */
const BOUND = LONGER ** 2 / 2;
/** The shortest of some is the one that nothing else held up. */
const ROUNDS = 20;

function assertLinear(name, textOf, size) {
  const least = new Map([[size, Infinity], [LONGER * size, Infinity]]);
  let grown = Infinity;
  for (let round = 0; round < ROUNDS && (round < 3 || grown > BOUND); round += 1) {
    for (const [size, time] of least) {
      const text = textOf(size);
      const began = performance.now();
      parse(text, ["ada"]);
      least.set(size, Math.min(time, performance.now() - began));
    }
    grown = least.get(LONGER * size) / least.get(size);
  }
  assert.ok(grown <= BOUND, `${name}: ${grown} times as long`);
}

test("an address takes no longer than its length, whatever is in it", () => {
  const signs = [..."().*/:@%-_"];
  for (const [name, addressOf] of [
    ["brackets that open and close", (size) => `http://a/${"(".repeat(size / 2)}${")".repeat(size / 2)}`],
    ...signs.map((sign) => [`a path of ${sign}`, (size) => `http://a/${sign.repeat(size)}`]),
    ...signs.map((sign) => [`a host of ${sign}`, (size) => `http://a${sign.repeat(size)}`]),
    ["many labels", (size) => `http://${"a.".repeat(size / 2)}`],
    ["an address in brackets", (size) => `http://[${":".repeat(size)}`],
  ]) {
    // Longer ones are no addresses.
    assertLinear(name, (size) => `${addressOf(size)} `.repeat(200), 120);
  }
});

test("a message takes no longer than its length, whatever begins in it", () => {
  for (const piece of [
    "@", "a@", "@ada", "a@b", "a@b.", "+", "+1", "+1 ", "0", " 0", "01-", "`", "`a", "```", "```a ", "``` \n", "\n", " ", "www.", "www.a",
    "http://", "http://a", "http://a/ ", ".", "(", ")", "e\u0301", "\u{1f642}", "\ud800",
  ]) {
    assertLinear(JSON.stringify(piece), (size) => piece.repeat(size / piece.length), 4_000);
  }
});
