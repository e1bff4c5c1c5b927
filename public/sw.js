// Opens the page without network or server, and shows what is pushed. It keeps files of exactly one version, those it was installed
// with; no message, no token and no answer of the API is ever kept by it.
//
// Two versions never mix: what the page opens with is kept before the worker is installed or the worker is not installed; a part
// that is loaded later (a dialog, a language) is kept once the chat is there and has nothing else to do, or when it is first used,
// and refused if the server has become another version meanwhile. A new worker waits until no page of the old one is left. When
// the last one reloads, it makes way.

import english from "./i18n/en.js";
import { isQuiet } from "./store/prefs.js";
import { FILES, VERSION } from "./version.js";

const CACHE = `chinwag-${VERSION}`;
/** Addresses as they are under the path that this worker serves. */
const addressOf = (path) => new URL(path.slice(1), registration.scope).href;
/** Icons are for the installer, which keeps its own. */
const OURS = new Set(FILES.filter((path) => !path.startsWith("/icons/") && path !== "/favicon.ico" && path !== "/sw.js" && path !== "/version.js").map(addressOf));
/** What the page cannot be opened without. */
const FIRST = ["/", "/app.css", "/app.js", "/api.js", "/load.js", "/session.js", "/i18n/index.js", "/i18n/en.js", "/store/prefs.js", "/view/dom.js", "/view/welcome.js"].map(addressOf);

/** What a page is made of, except for the languages, of which one is wanted. */
const REST = [...OURS].filter((address) => !address.includes("/i18n/"));

addEventListener("install", (event) => event.waitUntil(fill()));

// The page that is there before its worker is of the same version, and what it loads from now on is kept.
addEventListener("activate", (event) => event.waitUntil(discardOthers().then(() => clients.claim())));

addEventListener("message", (event) => {
  if (event.data === "take over") event.waitUntil(skipWaiting());
  // What a page has loaded before there was a worker.
  if (Array.isArray(event.data?.keep)) event.waitUntil(keep(event.data.keep));
  if (event.data?.keep === "rest") event.waitUntil(keep(REST));
  if (event.data?.words) event.waitUntil(keepWords(event.data.words));
});

addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || !OURS.has(origin + pathname)) return;
  event.respondWith(request.mode === "navigate" ? open() : answer(origin + pathname));
});

addEventListener("push", (event) => event.waitUntil(tell(event.data)));

addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(Promise.all([goTo(event.notification.data?.room), showBadge()]));
});

async function fill() {
  const cache = await caches.open(CACHE);
  try {
    await Promise.all(FIRST.map(async (address) => cache.put(address, await fetchVersion(address))));
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

/** The page has just loaded these files, so the browser's cache mostly has them; what is of another version is fetched. */
async function fetchVersion(address) {
  for (const cache of ["force-cache", "reload"]) {
    const response = await fetch(address, { cache });
    if (response.ok && isOfVersion(response, cache)) return response;
  }
  throw new Error(`${address} is not of version ${VERSION}`);
}

/** A proxy may have taken the `ETag` away; then nothing can be told, and what the server has now is taken. */
function isOfVersion(response, cache) {
  const tag = response.headers.get("ETag");
  if (tag === null) return cache === "reload";
  return tag.replace("W/", "").startsWith(`"${VERSION}`);
}

async function discardOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith("chinwag-") && name !== CACHE).map((name) => caches.delete(name)));
}

/** Opens the page; if a newer worker waits and no other page is open, lets that one answer instead. */
async function open() {
  const { waiting } = registration;
  if (waiting) {
    const pages = await clients.matchAll({ type: "window" });
    if (pages.length < 2) {
      waiting.postMessage("take over");
      return new Response("", { headers: { Refresh: "0" } });
    }
  }
  return answer(addressOf("/"));
}

async function answer(address) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(address, { ignoreVary: true });
  if (kept) return kept;
  const response = await fetchVersion(address);
  await cache.put(address, response.clone());
  return response;
}

async function keep(addresses) {
  const cache = await caches.open(CACHE);
  try {
    for (const address of addresses) {
      if (OURS.has(address) && !(await cache.match(address, { ignoreVary: true }))) await cache.put(address, await fetchVersion(address));
    }
  } catch {
    // Without the server, or with another version of it, what is missing is kept when it is wanted.
  }
}

/** What was pushed. iOS takes the subscription away from a worker that shows nothing, so whatever comes, something is shown. */
async function tell(data) {
  const { more, hidden, picture, quiet } = await keptWords();
  let news = {};
  try {
    news = data?.json() ?? {};
  } catch {
    // Then it says only that there is something.
  }
  const { room, message = 0, name, from, text, count = 1 } = news;
  const tag = `chinwag-${room}`;
  const said = text === undefined ? hidden : text || picture;
  const line = name && from ? `${from}: ${said}` : said;
  const body = count > 1 ? `${counted(more, count)}\n${line}` : line;
  // What an open page has shown already is not rung for again.
  const shown = await registration.getNotifications({ tag });
  const renotify = !shown.some((notification) => notification.data?.message >= message);
  const icon = new URL("icons/icon-192.png", registration.scope).href;
  await registration.showNotification(name ?? from ?? "chinwag", { body, tag, renotify, silent: !renotify || isQuiet(quiet), icon, data: { room, message, count } });
  await showBadge();
}

/** The badge counts what is told of and not looked at yet. */
async function showBadge() {
  const notifications = await registration.getNotifications();
  const unread = notifications.reduce((sum, { data }) => sum + (data?.count ?? 1), 0);
  await (unread > 0 ? navigator.setAppBadge?.(unread) : navigator.clearAppBadge?.())?.catch(() => {});
}

const WORDS = addressOf("/words");

/** The page's words, in its language, and when it is to be quiet. */
async function keepWords(words) {
  const cache = await caches.open(CACHE);
  await cache.put(WORDS, new Response(JSON.stringify(words)));
}

async function keptWords() {
  try {
    const kept = await (await caches.open(CACHE)).match(WORDS);
    if (kept) return await kept.json();
  } catch {
    // Whatever is the matter with the cache, what is pushed is shown.
  }
  return { more: { locale: "en", forms: english.words["log.new"] }, hidden: english.words["notify.body"], picture: english.words["message.picture"] };
}

/** A sentence with a number, as the page's `t` makes it. */
function counted({ locale, forms }, n) {
  const sentence = typeof forms === "object" ? (forms[new Intl.PluralRules(locale).select(n)] ?? forms.other) : forms;
  return sentence.replace("{n}", new Intl.NumberFormat(locale).format(n));
}

/** A notification was pressed: the room it tells of, in a page that is open or in a new one. */
async function goTo(room) {
  const pages = await clients.matchAll({ type: "window", includeUncontrolled: true });
  // Another program may have pages of the same origin, under another path.
  const page = pages.find(({ url }) => url.startsWith(registration.scope));
  if (!page) return clients.openWindow(addressOf("/") + (room ? `#/room/${room}` : ""));
  await page.focus();
  page.postMessage({ go: room });
}
