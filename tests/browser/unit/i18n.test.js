// The words of the page in every language, where they may stand, how a language is chosen, and that the page can be mirrored.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { afterEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import english from "../../../public/i18n/en.js";
import { LANGUAGES, clock, language, list, t, useClock, useLanguage } from "../../../public/i18n/index.js";
import { CSS } from "./style.js";

const PUBLIC = fileURLToPath(new URL("../../../public/", import.meta.url));
const read = (path) => readFileSync(PUBLIC + path, "utf8");
const CODES = LANGUAGES.map(([code]) => code);
const MODULES = new Map();
for (const code of CODES) MODULES.set(code, (await import(`../../../public/i18n/${code}.js`)).default);

const RIGHT_TO_LEFT = ["ar"];
/** `{n}` may be left out of the sentence for one and for two, where the language has a word for them. */
const COUNTED_BY_WORD = ["zero", "one", "two"];
const paramsOf = (sentence) => [...new Set(sentence.match(/\{\w+\}/g) ?? [])].sort();
const formsOf = (words) => (typeof words === "string" ? [["other", words]] : Object.entries(words));

/** `text` without what is in brackets, also in brackets in brackets. */
function without(text, brackets) {
  const rest = text.replace(brackets, "");
  return rest === text ? text : without(rest, brackets);
}

/** Every script of the page but its words, without the comments. */
const SCRIPTS = readdirSync(PUBLIC, { recursive: true })
  .filter((path) => path.endsWith(".js") && !/^i18n.(?!index)/.test(path))
  .map((path) => [path, read(path).replace(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*/g, "")]);

afterEach(() => {
  delete globalThis.document;
  return useLanguage("en");
});

test("what is stored is outside input: a clock that there is not is the usual one", () => {
  const usual = clock(0);
  useClock("constructor");
  assert.equal(clock(0), usual);
});

test("the languages to choose from are those that there are", () => {
  const modules = readdirSync(`${PUBLIC}i18n`).filter((name) => name !== "index.js");
  assert.deepEqual(modules.sort(), CODES.map((code) => `${code}.js`).sort());
});

for (const [code, { dir, words }] of MODULES) {
  test(`${code} says all that English says, and nothing else`, () => {
    assert.deepEqual(Object.keys(words), Object.keys(english.words));
    assert.equal(dir, RIGHT_TO_LEFT.includes(code) ? "rtl" : "ltr");
  });

  test(`${code} has the plural forms of its language`, () => {
    const categories = new Intl.PluralRules(code).resolvedOptions().pluralCategories.toSorted();
    for (const [key, forms] of Object.entries(words)) {
      assert.equal(typeof forms, typeof english.words[key], key);
      if (typeof forms === "object") assert.deepEqual(Object.keys(forms).toSorted(), categories, key);
    }
  });

  test(`${code} fills in the same as English`, () => {
    for (const [key, forms] of Object.entries(words)) {
      const wanted = paramsOf(formsOf(english.words[key]).at(-1)[1]);
      for (const [category, sentence] of formsOf(forms)) {
        assert.match(sentence, /\S/, key);
        assert.equal(sentence, sentence.trim(), key);
        const counted = COUNTED_BY_WORD.includes(category) && typeof forms === "object" && !sentence.includes("{n}");
        assert.deepEqual(paramsOf(sentence), counted ? wanted.filter((param) => param !== "{n}") : wanted, `${key} ${category}`);
      }
    }
  });
}

test("every sentence asked for by its key is there", () => {
  const keys = SCRIPTS.flatMap(([, script]) => [...script.matchAll(/\bt\("([^"]+)"/g)].map(([, key]) => key));
  const marked = [...read("index.html").matchAll(/data-t(?:-\w+)?="([^"]+)"/g)].map(([, key]) => key);
  assert.ok(keys.length > 100 && marked.length > 20);
  assert.deepEqual([...keys, ...marked].filter((key) => !(key in english.words)), []);
});

test("no script has a sentence of its own", () => {
  const found = [];
  for (const [path, script] of SCRIPTS) {
    const shown = /(?:\b(?:text|title|alt|placeholder|label|textContent)|"aria-\w+")(?:: | = )(["'`])(.*?)\1/g;
    for (const [whole, , literal] of script.matchAll(shown)) {
      // An attribute's state or what has no letters is no sentence, and the name of the program is the same everywhere.
      const said = without(literal, /\{[^{}]*\}/g).replace("chinwag", "");
      if (/\p{L}{2}/u.test(said) && !/^"aria-(?!label)/.test(whole)) found.push(`${path}: ${whole}`);
    }
    for (const [literal] of script.matchAll(/(["'`])\p{Lu}\p{Ll}*[,.]? \p{L}[^"'`\n]*\1/gu)) found.push(`${path}: ${literal}`);
  }
  assert.deepEqual(found, []);
});

test("the document has no words but the program's name, a key, and what is said before a script has run", () => {
  const body = read("index.html")
    .replace(/^[\s\S]*<body>/, "")
    .replace(/<!--[\s\S]*?-->|<main id="boot">[\s\S]*?<\/main>|<kbd>.*?<\/kbd>/g, "");
  const texts = [...body.matchAll(/>([^<]+)</g)].map(([, text]) => text.trim());
  assert.deepEqual([...new Set(texts.filter((text) => /\p{L}/u.test(text)))], ["chinwag"]);
  assert.deepEqual(body.match(/\s(aria-label|placeholder|title|alt)="[^"]*\p{L}[^"]*"/gu), null);
});

test("the browser's first language that the page speaks is taken, in whatever region and script", async () => {
  const choices = [
    [["en-GB"], "en"],
    [["nl", "tlh"], "en"],
    [[], "en"],
    [["zh-Hans"], "zh"],
    [["zh-TW", "en"], "zh"],
    [["nl-BE", "pt-BR", "en"], "pt"],
    [["AR-eg"], "ar"],
  ];
  for (const [preferred, wanted] of choices) {
    globalThis.document = { documentElement: {} };
    assert.ok(await useLanguage(null, preferred));
    assert.equal(language(), wanted);
    assert.deepEqual(globalThis.document.documentElement, { lang: wanted, dir: MODULES.get(wanted).dir });
  }
});

test("what was chosen goes before what the browser prefers, and nonsense before neither", async () => {
  await useLanguage("en", ["zh"]);
  assert.equal(language(), "en");
  await useLanguage("constructor", ["en-US"]);
  assert.equal(language(), "en");
});

test("the last choice counts, though the words of the one before come later", async () => {
  const late = useLanguage("ja");
  await useLanguage("en");
  await late;
  assert.equal(language(), "en");
});

test("a language that the browser names in a way of its own still has its numbers and lists", async () => {
  assert.ok(await useLanguage(null, ["en-US@posix", "C"]));
  assert.equal(list(["Ada", "Bob"]), "Ada and Bob");
  assert.equal(t("people.online", { n: 1 }), "1 online");
});

test("a sentence that a language lacks is said in English", async () => {
  const [code, { words }] = [...MODULES].at(-1);
  const kept = words["dialog.close"];
  try {
    words["dialog.close"] = undefined;
    await useLanguage(code, []);
    assert.equal(t("dialog.close"), english.words["dialog.close"]);
  } finally {
    words["dialog.close"] = kept;
  }
});

test("what is filled into a sentence that runs from right to left keeps its own direction", async () => {
  await useLanguage("ar", []);
  assert.match(t("typing.one", { name: "Ada (2)" }), /^\u2068Ada \(2\)\u2069 /);
  await useLanguage("en", []);
  assert.equal(t("typing.one", { name: "Ada" }), "Ada is typing…");
});

test("no language but English is part of the first visit", () => {
  const others = CODES.filter((code) => code !== "en").join("|");
  for (const [path, text] of [...SCRIPTS, ["index.html", read("index.html")]]) {
    assert.doesNotMatch(text, new RegExp(`i18n/(${others})\\.js|"\\./(${others})\\.js"`), path);
  }
});

test("the style sheet has no left and no right, so that it can be mirrored", () => {
  const found = [];
  for (const [, property, value] of CSS.matchAll(/(?<=[{;]\s*)([a-z-]+):\s*([^;{}]+);/g)) {
    const parts = without(value, /\([^()]*\)/g).split(/\s+/);
    const isPhysical =
      /(^|-)(left|right)(-|$)/.test(property) ||
      (/^(text-align|float|clear)$/.test(property) && /^(left|right)$/.test(value)) ||
      (/^(margin|padding|inset|border-(width|style|color))$/.test(property) && parts.length === 4 && parts[1] !== parts[3]) ||
      // Four radii: the corners of one side must be those of the other.
      (property === "border-radius" && parts.length > 2 && (parts[0] !== parts[1] || parts[2] !== (parts[3] ?? parts[1])));
    if (isPhysical) found.push(`${property}: ${value}`);
  }
  assert.deepEqual(found, []);
});
