// What this person is told of while they look elsewhere: notifications, the title, the app's badge, a sound.
//
//   new Notifier(app, button)     `button` is the toggle "Notifications"
//   message(message)              a live message; whether it is told of is decided here
//   showTitle()                   "(3) Sunday lunch · The Lindens"
//   toggle(), isOn
//   followPush()                  tells a server that pushes where this device is; to be called when `app.about` is known

import { t } from "../i18n/index.js";
import { load } from "../load.js";
import { Store, isQuiet } from "../store/prefs.js";
import { isInSight } from "./dom.js";
import { plain } from "./text.js";

const LENGTH = 200;
const TITLE_AFTER_MS = 150;
/** A tab that shows messages says so at once, then this often at most, whatever comes… */
const SAY_EVERY_MS = 40;
/** …and what it said counts so long: ids begin anew when a server does. */
const SAID_LASTS_MS = 5_000;
/** What one tab shows no other tells: the one that shows it has this long to say so. */
const TELL_AFTER_MS = 60;
const SEEN_KEY = "chinwag.seen";

export class Notifier {
  #app;
  #button;
  #abort = new AbortController();
  #badge = -1;
  #push;
  /** Whether this device is pushed to. */
  #isPushed = false;
  /** The wish that was last followed, and the language in which the worker has its words. */
  #told = null;
  #kept = new Store("localStorage");
  #seenHere = 0;
  #saying = null;
  #titleTimer = null;

  constructor(app, button) {
    this.#app = app;
    this.#button = button;
    const { signal } = this.#abort;
    button.addEventListener("click", () => this.toggle(), { signal });
    app.prefs.addEventListener("change", () => this.#changed(), { signal });
    navigator.serviceWorker?.addEventListener("message", ({ data }) => data?.go && app.go(data.go), { signal });
    const look = () => {
      app.connection.sight(isInSight());
      if (isInSight()) takeAway({ tag: `chinwag-${app.room.id}` });
    };
    for (const type of ["focus", "blur"]) addEventListener(type, look, { signal });
    document.addEventListener("visibilitychange", look, { signal });
    look();
    this.#show();
  }

  /** `forGood`: the person logged out, leaves no text on the screen either, and nothing more comes. */
  close(forGood) {
    this.#abort.abort();
    if (forGood) {
      takeAway();
      unsubscribe();
    }
    clearTimeout(this.#titleTimer);
    clearTimeout(this.#saying);
    this.#setBadge(0);
  }

  get isOn() {
    return globalThis.Notification?.permission === "granted" && this.#app.prefs.get("notify") === true;
  }

  /** Where to push to is told at each start, and when a wish has changed; not each time that the server says what it is. */
  async followPush() {
    const { about, prefs } = this.#app;
    if (!about.push) return;
    const wish = this.isOn ? { about: prefs.get("about") ?? "all", preview: prefs.get("preview") !== false, quiet: prefs.get("quiet") } : null;
    const told = JSON.stringify([wish, prefs.get("language")]);
    if (told === this.#told) return;
    this.#told = told;
    try {
      // Most servers push, but not every person wants it, and the page is to open fast.
      this.#push ??= new (await load("store/push.js")).Push(this.#app.api);
      this.#isPushed = await this.#push.follow(wish);
    } catch {
      this.#isPushed = false;
    }
    // What has failed is tried again at the next occasion.
    if (wish && !this.#isPushed && told === this.#told) this.#told = null;
  }

  /** Asks for permission only here: when someone presses. */
  async toggle() {
    const wanted = !this.isOn;
    this.#app.say(null);
    const why = obstacle();
    if (wanted && why) this.#app.say(() => t(`notify.${why}`));
    else if (wanted && (await Notification.requestPermission()) !== "granted") this.#app.say(() => t("notify.blocked"));
    else this.#app.prefs.set("notify", wanted);
    this.#show();
  }

  message(message) {
    const { username } = this.#app;
    if (message.username === username) return;
    if (isInSight()) {
      this.#sawHere(message.id);
      return;
    }
    if (this.isOn && this.#concerns(message)) setTimeout(() => this.#tell(message), TELL_AFTER_MS);
  }

  /** A message that is in sight is unread for a moment only: what the title says waits for that. */
  showTitle() {
    this.#titleTimer ??= setTimeout(() => this.#showTitle(), TITLE_AFTER_MS);
  }

  #showTitle() {
    this.#titleTimer = null;
    const { rooms, room, about } = this.#app;
    const place = [rooms.nameOf(room), about.name || "chinwag"].filter(Boolean).join(" · ");
    const { unread } = rooms;
    const title = unread > 0 ? `(${unread}) ${place}` : place;
    if (document.title !== title) document.title = title;
    this.#setBadge(unread);
  }

  #changed() {
    this.#show();
    this.followPush();
  }

  #show() {
    this.#button.setAttribute("aria-pressed", String(this.isOn));
  }

  #setBadge(unread) {
    if (unread === this.#badge) return;
    this.#badge = unread;
    (unread > 0 ? navigator.setAppBadge?.(unread) : navigator.clearAppBadge?.())?.catch(() => {});
  }

  #concerns(message) {
    const { rooms, prefs } = this.#app;
    const room = rooms.get(message.room);
    if (room?.notify === "nothing" || isQuiet(prefs.get("quiet"))) return false;
    const what = room?.notify ?? prefs.get("about") ?? "all";
    return what === "all" || room?.kind === "direct" || rooms.isMentioned(message);
  }

  #sawHere(id) {
    this.#seenHere = id;
    if (this.#saying !== null) return;
    this.#kept.set(SEEN_KEY, { id, at: Date.now() });
    this.#saying = setTimeout(() => {
      this.#saying = null;
      if (this.#seenHere > id) this.#sawHere(this.#seenHere);
    }, SAY_EVERY_MS);
  }

  #isSeenElsewhere(id) {
    const seen = this.#kept.get(SEEN_KEY);
    return seen?.id >= id && Math.abs(Date.now() - seen.at) < SAID_LASTS_MS;
  }

  #tell(message) {
    if (this.#abort.signal.aborted || this.#isSeenElsewhere(message.id) || isInSight()) return;
    if (this.#app.prefs.get("sound") === true) ring();
    const { rooms, prefs } = this.#app;
    const room = rooms.get(message.room);
    const title = !room || room.kind === "direct" || room.id === 1 ? message.username : t("notify.title", { name: message.username, room: rooms.nameOf(room) });
    const body = prefs.get("preview") === false ? t("notify.body") : [...(plain(message.content) || t("message.picture"))].slice(0, LENGTH).join("");
    // One tag for a room: the newest replaces the one before, also across tabs.
    const options = { body, tag: `chinwag-${message.room}`, icon: "icons/icon-192.png", data: { room: message.room, message: message.id } };
    // Shown by the worker, it is found there by the push of the same message, which then does not ring again.
    if (this.#isPushed) return this.#showByWorker(title, options);
    try {
      const notification = new Notification(title, options);
      notification.onclick = () => {
        window.focus();
        this.#app.go(message.room);
        notification.close();
      };
    } catch {
      // On Android only a service worker may show one.
      this.#showByWorker(title, options);
    }
  }

  #showByWorker(title, options) {
    navigator.serviceWorker?.ready.then((registration) => registration.showNotification(title, options)).catch(() => {});
  }
}

/** Why notifications cannot be had: "insecure", "homeScreen", "unsupported", or null. */
function obstacle() {
  if (globalThis.isSecureContext === false) return "insecure";
  if (globalThis.Notification) return null;
  // Safari on a telephone has notifications for what is on the Home Screen only. iPads say that they are Macs.
  const isApple = /iPhone|iPad|iPod/.test(navigator.userAgent) || (/Macintosh/.test(navigator.userAgent) && navigator.maxTouchPoints > 1);
  return isApple && navigator.standalone !== true ? "homeScreen" : "unsupported";
}

/** Takes away what the worker has shown. */
async function takeAway(filter) {
  try {
    const registration = await navigator.serviceWorker?.getRegistration();
    for (const notification of (await registration?.getNotifications(filter)) ?? []) notification.close();
  } catch {
    // What cannot be found cannot be taken away.
  }
}

/** Ends what is pushed to this device, without the server, which forgets the device with the session and may be out of reach now. */
async function unsubscribe() {
  try {
    const registration = await navigator.serviceWorker?.getRegistration();
    const subscription = await registration?.pushManager?.getSubscription();
    await subscription?.unsubscribe();
  } catch {
    // Then the server ends it, once it hears of the logout.
  }
}

/** Two soft notes. A browser may keep a page silent that nobody has touched yet. */
function ring() {
  try {
    const audio = new AudioContext();
    const volume = new GainNode(audio, { gain: 0 });
    volume.connect(audio.destination);
    volume.gain.linearRampToValueAtTime(0.08, audio.currentTime + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.5);
    const tone = new OscillatorNode(audio, { frequency: 660 });
    tone.frequency.setValueAtTime(880, audio.currentTime + 0.12);
    tone.connect(volume);
    tone.onended = () => audio.close();
    tone.start();
    tone.stop(audio.currentTime + 0.5);
  } catch {
    // Then it is shown only.
  }
}
