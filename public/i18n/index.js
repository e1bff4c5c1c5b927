// The words of the page. Every sentence a person reads or hears is in one module by language (`en.js` and its neighbours);
// numbers, times, days, lists and plurals come from `Intl`.
//
//   t(key, params)        the sentence; `{name}` in it is replaced by `params.name`, numbers in the way of the language.
//                         A sentence that depends on a count is an object by plural category, chosen by `params.n`.
//   translate(root)       fills what the HTML marks: `data-t` (text), `data-t-label` (aria-label), and what `worded` knows
//   worded(element, name, write)      what `write()` gives is the element's text (`name` is "text") or attribute, and is written
//                         anew whenever `translate` comes by: in another language, or with another clock
//   useLanguage(code)     loads and takes a language; null: the browser's. Resolves when the words are there.
//   words(key)            the sentence as it stands, with its language: for the service worker, which cannot load one
//   LANGUAGES             `[code, own name]` of all there are
//   clock, moment, dayInWords, stamp, number, list, compare       what `Intl` writes, in the language chosen
//
// A language module: `export default { dir: "ltr" | "rtl", words: { key: sentence | { one, few, many, other } } }`.

import { load } from "../load.js";
import english from "./en.js";

export const LANGUAGES = [
  ["en", "English"],
  ["de", "Deutsch"],
  ["fr", "Français"],
  ["es", "Español"],
  ["pt", "Português"],
  ["pl", "Polski"],
  ["uk", "Українська"],
  ["zh", "中文"],
  ["ja", "日本語"],
  ["ar", "العربية"],
];

/** By what is stored, which is outside input. */
const HOUR_CYCLES = new Map([["12", "h12"], ["24", "h23"]]);

let sentences = english.words;
let direction = english.dir;
let locale = "en";
let code = "en";
let hourCycle = null;
let made = new Map();
/** Goes up with each choice: words that come after the next one are not wanted any more. */
let choices = 0;

/** What `Intl` makes is costly to make and is kept until the language or the clock changes. */
function intl(name, make) {
  if (!made.has(name)) made.set(name, make());
  return made.get(name);
}

const format = (name, options) =>
  intl(name, () => new Intl.DateTimeFormat(locale, hourCycle && /time|hour/i.test(JSON.stringify(options)) ? { ...options, hourCycle } : options));

export function t(key, params = {}) {
  const found = sentences[key] ?? english.words[key];
  const sentence = typeof found === "object" ? (found[plural(params.n)] ?? found.other) : (found ?? key);
  return sentence.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = params[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : isolated(String(value));
  });
}

/** A name in Latin letters would tear an Arabic sentence apart, and a comma beside it end up on its other side. */
const isolated = (value) => (direction === "rtl" ? `\u2068${value}\u2069` : value);

/** A sentence as it stands in the language chosen, for who fills it in elsewhere: with the language, for its plurals. */
export const words = (key) => ({ locale, forms: sentences[key] ?? english.words[key] });

const plural = (n) => intl("plural", () => new Intl.PluralRules(locale)).select(Number(n) || 0);

export const number = (n) => intl("number", () => new Intl.NumberFormat(locale)).format(n);

export const list = (names) => intl("list", () => new Intl.ListFormat(locale, { type: "conjunction" })).format(names);

/** Orders names as a person would. */
export const compare = (a, b) =>
  intl("collator", () => new Intl.Collator(locale, { sensitivity: "base", numeric: true })).compare(a, b);

/** The time of day. */
export const clock = (time) => format("clock", { timeStyle: "short" }).format(time);

/** Day and time in full. */
export const moment = (time) => format("moment", { dateStyle: "full", timeStyle: "short" }).format(time);

/** A day, short. */
export const date = (time) => format("date", { dateStyle: "medium" }).format(time);

/** A local day as the time of its midnight. */
export function dayOf(time) {
  const date = new Date(time);
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}

/** `day` and `now` are times; a day of 23 hours is a day too, hence dates and not differences. */
export function dayInWords(day, now = Date.now()) {
  const today = dayOf(now);
  if (dayOf(day) === today) return t("day.today");
  if (dayOf(day) === yesterdayOf(now)) return t("day.yesterday");
  const sameYear = new Date(day).getFullYear() === new Date(now).getFullYear();
  return format(...(sameYear ? ["dayThisYear", { weekday: "long", day: "numeric", month: "long" }] : ["day", { dateStyle: "long" }])).format(day);
}

const yesterdayOf = (now) => {
  const today = new Date(dayOf(now));
  return new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1).getTime();
};

const WEEK_MS = 6 * 24 * 60 * 60 * 1000;

/** When something was last said, as short as can be: the time today, else the day. */
export function stamp(time, now = Date.now()) {
  if (dayOf(time) === dayOf(now)) return clock(time);
  if (dayOf(time) === yesterdayOf(now)) return t("day.yesterday");
  if (now - time < WEEK_MS && time < now) return format("weekday", { weekday: "long" }).format(time);
  return format("shortDay", { day: "numeric", month: "short" }).format(time);
}

/** By element what writes its text and attributes. */
const writers = new WeakMap();

export function worded(element, name, write) {
  element.dataset.worded = "";
  writers.set(element, new Map(writers.get(element)).set(name, write));
  rewrite(element);
}

function rewrite(element) {
  for (const [name, write] of writers.get(element) ?? []) {
    if (name === "text") element.textContent = write();
    else element.setAttribute(name, write());
  }
}

/** Fills `root` and what is in it with the words it is marked for. */
export function translate(root) {
  const marked = "[data-t], [data-t-label], [data-worded]";
  const elements = [...(root.matches?.(marked) ? [root] : []), ...root.querySelectorAll(marked)];
  for (const element of elements) {
    const { t: text, tLabel } = element.dataset;
    if (text) element.textContent = t(text);
    if (tLabel) element.setAttribute("aria-label", t(tLabel));
    rewrite(element);
  }
  return root;
}

export const language = () => code;

/** `clockChoice`: `"12"`, `"24"`, or null for what is usual in the language. */
export function useClock(clockChoice) {
  hourCycle = HOUR_CYCLES.get(clockChoice) ?? null;
  made = new Map();
}

/** What cannot be loaded leaves the page in English: words in a foreign language are better than none. */
export async function useLanguage(chosen, preferred = globalThis.navigator?.languages ?? []) {
  const known = LANGUAGES.map(([known]) => known);
  const wanted = known.includes(chosen) ? chosen : (preferred.map(base).find((name) => known.includes(name)) ?? "en");
  const choice = (choices += 1);
  let module = english;
  if (wanted !== "en") {
    try {
      module = (await load(`i18n/${wanted}.js`)).default;
    } catch {
      return false;
    }
    if (choice !== choices) return false;
  }
  code = wanted;
  sentences = module.words;
  direction = module.dir;
  // The region, if the browser names one for this language: it decides how times and dates are written.
  locale = preferred.find((name) => base(name) === wanted && isLocale(name)) ?? wanted;
  made = new Map();
  if (globalThis.document) {
    // Setting the language it has already would count as a change for observers.
    if (document.documentElement.lang !== wanted) document.documentElement.lang = wanted;
    document.documentElement.dir = module.dir;
  }
  return true;
}

/** A browser may name its language as its system does ("en-US@posix"), which `Intl` refuses. */
function isLocale(name) {
  try {
    return Intl.getCanonicalLocales(name).length > 0;
  } catch {
    return false;
  }
}

const base = (name) => String(name).toLowerCase().split("-")[0];
