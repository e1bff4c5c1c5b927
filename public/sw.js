// Opens the page without network or server. It keeps the files of exactly one version, those it was installed with; no
// message, no token and no answer of the API ever passes through it.
//
// Two versions never mix: a cache is filled with files of one version or not at all, a page gets all its files from one
// cache, and a new worker waits until no page of the old one is left. When the last one reloads, it makes way.

import { FILES, VERSION } from "/version.js";

const CACHE = `chinwag-${VERSION}`;
/** What the page needs to open. Icons are for the installer, which keeps its own. */
const NEEDED = FILES.filter((path) => !path.startsWith("/icons/") && path !== "/sw.js" && path !== "/version.js");

addEventListener("install", (event) => event.waitUntil(fill()));

addEventListener("activate", (event) => event.waitUntil(discardOthers()));

addEventListener("message", (event) => {
  if (event.data === "take over") event.waitUntil(skipWaiting());
});

addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin || !NEEDED.includes(pathname)) return;
  event.respondWith(request.mode === "navigate" ? open(request) : answer(request));
});

async function fill() {
  const cache = await caches.open(CACHE);
  try {
    await Promise.all(NEEDED.map(async (path) => cache.put(path, await fetchVersion(path))));
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

/** The page has just loaded these files, so the browser's cache mostly has them; what is of another version is fetched. */
async function fetchVersion(path) {
  for (const cache of ["force-cache", "reload"]) {
    const response = await fetch(path, { cache });
    if (response.ok && response.headers.get("ETag")?.replace("W/", "").startsWith(`"${VERSION}`)) return response;
  }
  throw new Error(`${path} is not of version ${VERSION}`);
}

async function discardOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith("chinwag-") && name !== CACHE).map((name) => caches.delete(name)));
}

/** Opens the page; if a newer worker waits and no other page is open, lets that one answer instead. */
async function open(request) {
  const { waiting } = registration;
  if (waiting) {
    const pages = await clients.matchAll({ type: "window" });
    if (pages.length < 2) {
      waiting.postMessage("take over");
      return new Response("", { headers: { Refresh: "0" } });
    }
  }
  return answer(request);
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request, { ignoreSearch: true, ignoreVary: true })) ?? fetch(request);
}
