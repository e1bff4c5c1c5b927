// The entry: shows the form or the chat, and tells them what happens around the page.

import { about, health, inWords } from "./api.js";
import { t, translate, useClock, useLanguage } from "./i18n/index.js";
import { load } from "./load.js";
import { Session } from "./session.js";
import { Prefs, Store } from "./store/prefs.js";
import { isHidden, template } from "./view/dom.js";

const ASK_AGAIN_MS = 5_000;
/** Where the browser does not say when it has nothing to do. */
const IDLE_MS = 500;
/** An app that is open for days asks this often whether there is a new version. */
const UPDATE_EVERY_MS = 60 * 60 * 1000;
const TEXT_SIZES = new Map([["small", "0.9"], ["large", "1.125"], ["larger", "1.3"]]);

const session = new Session();
const prefs = new Prefs();
/** What belongs to this tab. */
const tab = new Store("sessionStorage");
const boot = document.getElementById("boot");
/** The answer of `GET /about`, once there is one. */
let server = null;
let chat = null;
let form = null;
let name = "";
/** Goes up with each view: one whose modules come late is not shown any more. */
let shown = 0;

/** Shows what the session says. `words` tell why the form is there. */
async function showView(words, forGood) {
  const turn = (shown += 1);
  chat?.close(forGood);
  name = form?.name || name;
  form?.close();
  [chat, form] = [null, null];
  const isChat = session.token !== null;
  let module;
  try {
    module = await load(isChat ? "view/chat.js" : "view/welcome.js");
  } catch {
    // Reloading helps, so a person who would see an empty page is told to.
    if (turn === shown) showFailure();
    return;
  }
  if (turn !== shown) return;
  const view = template(isChat ? "chat-view" : "welcome-view");
  document.querySelector(".view")?.remove();
  document.body.prepend(view);
  boot.remove();
  if (isChat) {
    chat = new module.Chat(view, { session, prefs, tab });
    chat.connection.addEventListener("welcome", () => {
      if (server === null) learnServer();
      keepRest();
    });
  } else {
    document.title = server?.name || "chinwag";
    form = new module.LoginForm(view, session);
    form.name = name;
    form.show(words);
    watchServer();
  }
  if (server !== null) (chat ?? form).server = server;
  learnServer();
}

/** What is loaded when it is first wanted may be wanted without a network: to log out, for one. So the worker keeps it before. */
async function keepRest() {
  await new Promise((resolve) => (globalThis.requestIdleCallback ? requestIdleCallback(resolve) : setTimeout(resolve, IDLE_MS)));
  (await navigator.serviceWorker?.ready)?.active.postMessage({ keep: "rest" });
}

/** The words that are there until a script has run. */
function showFailure() {
  document.querySelector(".view")?.remove();
  document.body.prepend(boot);
  boot.querySelector("p").textContent = t("error.module");
  boot.classList.add("failed");
}

async function learnServer() {
  try {
    server = await about();
    if (chat ?? form) (chat ?? form).server = server;
    if (form) document.title = server.name || "chinwag";
  } catch {
    // The page does without until the server is back.
  }
}

/** The looks and the language that were chosen. */
async function takePrefs() {
  const root = document.documentElement;
  const theme = prefs.get("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
  root.style.setProperty("--text-scale", TEXT_SIZES.get(prefs.get("textSize")) ?? "1");
  useClock(prefs.get("clock"));
  return useLanguage(prefs.get("language"));
}

let spoken = JSON.stringify([prefs.get("language"), prefs.get("clock")]);
prefs.addEventListener("change", async () => {
  await takePrefs();
  const now = JSON.stringify([prefs.get("language"), prefs.get("clock")]);
  if (now === spoken) return;
  spoken = now;
  translate(document.body);
  chat?.retranslate();
});

session.addEventListener("change", ({ detail }) => showView(detail.words, detail.loggedOut));

// What happens around the page.

addEventListener("online", () => networkChanged(true));
addEventListener("offline", () => networkChanged(false));
addEventListener("focus", () => chat?.focused());
addEventListener("pageshow", ({ persisted }) => persisted && chat?.shown());
addEventListener("pagehide", () => chat?.hidden());
document.addEventListener("visibilitychange", () => (isHidden() ? chat?.hidden() : chat?.shown()));
// What is dropped beside its place must not lead away from here.
for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());

function networkChanged(available) {
  if (available) session.tellOfLeaving();
  if (chat) chat.network(available);
  else form?.say(available ? "" : t("login.noNetwork"));
}

/** Opened from the service worker's copy, the form cannot tell by itself whether there is a server behind it. */
async function watchServer(told = false) {
  if (!form || !navigator.serviceWorker?.controller) return;
  try {
    await health();
    if (told) form?.say("");
    if (server === null) learnServer();
  } catch (error) {
    form?.say(error.code === "redirected" ? inWords(error) : t(navigator.onLine ? "login.noServer" : "login.noNetwork"));
    setTimeout(watchServer, ASK_AGAIN_MS, true);
  }
}

/** Keeps the page above an on-screen keyboard where the browser lays it over the page. Pinching is not resizing. */
function fitViewport() {
  const { scale, height } = visualViewport;
  if (scale !== 1) return;
  document.documentElement.style.setProperty("--viewport-height", `${height}px`);
  // Safari scrolls the page up behind its keyboard.
  scrollTo(0, 0);
}
globalThis.visualViewport?.addEventListener("resize", fitViewport);

function atMidnight() {
  const now = new Date();
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate() + 1);
  setTimeout(() => {
    chat?.midnight();
    atMidnight();
  }, midnight - now + 1_000);
}

/** Without a service worker the page works as well, but opens with a network only. */
async function registerWorker() {
  try {
    const registration = await navigator.serviceWorker?.register("sw.js", { type: "module", updateViaCache: "none" });
    if (!registration) return;
    setInterval(() => registration.update().catch(() => {}), UPDATE_EVERY_MS);
    registration.addEventListener("updatefound", () => {
      const { installing } = registration;
      installing?.addEventListener("statechange", () => installing.state === "installed" && navigator.serviceWorker.controller && chat?.say(() => t("app.newVersion")));
    });
    const { active } = await navigator.serviceWorker.ready;
    // What was loaded before there was a worker.
    const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
    active.postMessage({ keep: loaded });
  } catch {
    // As above.
  }
}

await takePrefs();
atMidnight();
await showView("");
registerWorker();
