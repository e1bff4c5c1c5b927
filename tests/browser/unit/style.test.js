// What holds of the whole style sheet.

import assert from "node:assert/strict";
import { test } from "node:test";

import { CSS } from "./style.js";

test("all layers are in order before the first is filled: one that is named later would win over all others", () => {
  const [, ordered] = /^\s*@layer ([\w, ]+);/.exec(CSS);
  const filled = [...CSS.matchAll(/@layer (\w+) \{/g)].map(([, name]) => name);
  assert.deepEqual([...new Set(filled)].sort(), ordered.split(", ").sort());
});

test("what is chosen has a shape where all colours are the person's own", () => {
  const own = CSS.slice(CSS.indexOf("@media (forced-colors: active)"));
  const shaped = new Map();
  for (const [, selectors, body] of CSS.slice(0, CSS.indexOf("@media (forced-colors: active)")).matchAll(/([^{};]*)\{([^{}]*)\}/g)) {
    for (const selector of selectors.split(",")) {
      // Up to the state, and on to whatever stands beside it: what is inside does not have to change as well.
      const [chosen] = /\S*(?:\S+ )?\S*(?:\[aria-(?:pressed|selected|checked)="true"\]|\[aria-current\]|:checked)(?: \+ \S+)?/.exec(selector.trim()) ?? [];
      if (!chosen || selector.includes(":not(")) continue;
      const key = chosen.replace(/^(?:article|\.entry|dialog\.sheet|\.composer) /, "").split("::")[0];
      shaped.set(key, shaped.get(key) || /outline:|visibility:/.test(body) || own.includes(key));
    }
  }
  assert.ok(shaped.size > 8, [...shaped.keys()].join("; "));
  assert.deepEqual([...shaped].filter(([, isShaped]) => !isShaped).map(([key]) => key), []);
});

test("only a pointer that can hover does: on touch it would stick to what was pressed last", () => {
  const found = [];
  const around = [];
  for (const [, before, brace] of CSS.matchAll(/([^{};]*)([{};])/g)) {
    if (brace === "}") around.pop();
    if (brace !== "{") continue;
    if (before.includes(":hover") && !around.some((rule) => rule.includes("(hover: hover)"))) found.push(before.trim());
    around.push(before);
  }
  assert.deepEqual(found, []);
  assert.deepEqual(around, []);
  assert.match(CSS, /:hover/);
});
