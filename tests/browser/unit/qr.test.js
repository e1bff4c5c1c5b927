// The QR code: the codes of these texts were read by another program when they were written down, as were those of every length.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { matrixOf } from "../../../public/view/qr.js";

const digest = (text) =>
  createHash("sha256")
    .update(
      matrixOf(text)
        .map((row) => row.map(Number).join(""))
        .join("\n"),
    )
    .digest("hex");

for (const [text, what, side, wanted] of [
  ["chinwag", "the smallest", 21, "d2dfb6378091d9a6e9389275f6e0aa001f4991c133ae99f70b3fa5ab129a3ba6"],
  [
    "https://chat.example.org/#invite=3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "an invitation's",
    37,
    "1fce26c5ecda3d2261e82c4c953e62d47bc3aa78dd30898f125ba993af8eee46",
  ],
  ["x".repeat(213), "the largest", 57, "f8a692e420006d88c10e55f6fb2f048c68ad07db0d7c3f134adf4ff3fc04aae2"],
]) {
  test(`the code is the one that was read: ${what}`, () => {
    assert.equal(matrixOf(text).length, side);
    assert.equal(digest(text), wanted);
  });
}

test("a text that is too long is refused", () => {
  assert.throws(() => matrixOf("x".repeat(214)), RangeError);
});

test("text beyond ASCII counts in bytes", () => {
  assert.equal(matrixOf("ü".repeat(106)).length, 57);
  assert.throws(() => matrixOf("ü".repeat(107)), RangeError);
});
