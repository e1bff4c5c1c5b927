// The entry: shows the form or the chat, and wires the modules of the chat to each other and to the page.

import { ApiError, health, messages as fetchMessages } from "./api.js";
import { Composer, Outbox } from "./composer.js";
import { Connection } from "./connection.js";
import { LogView, isHidden } from "./log.js";
import { People, PeopleView } from "./people.js";
import { LoginForm, Session, Store } from "./session.js";
import { Timeline } from "./timeline.js";

const TITLE = document.title;
const NOTIFICATIONS_KEY = "chinwag.notifications";
const NOTIFICATION_LENGTH = 200;
const ASK_AGAIN_MS = 5_000;
const NO_NETWORK = "There is no network. You can log in once it is back.";
const NO_SERVER = "The server cannot be reached right now. You can log in once it is back.";

const find = (id) => document.getElementById(id);
const session = new Session();
const loginForm = new LoginForm(find("login"), session, { notice: find("login-notice"), invited: find("invited") });
/** What belongs to this tab: drafts and what is unsent. */
const tab = new Store("sessionStorage");
let chat = null;

/** One person's chat, from login to logout. */
class Chat {
  #username = session.username;
  #token = session.token;
  #outbox = new Outbox(tab, `chinwag.outbox.${this.#username}`);
  #draftKey = `chinwag.draft.${this.#username}`;
  #connection;
  #timeline;
  #log;
  #people = new People(this.#username);
  #peopleView;
  #composer;
  #error = find("chat-error");

  constructor() {
    this.#connection = new Connection({
      url: new URL("/ws", location.href.replace(/^http/, "ws")),
      token: this.#token,
      outbox: this.#outbox,
      network: navigator.onLine,
    });
    this.#timeline = new Timeline({ fetchPage: (range) => this.#fetchPage(range), outbox: this.#outbox });
    this.#log = new LogView(this.#timeline, this.#username, {
      log: find("log"),
      jump: find("jump"),
      empty: find("empty"),
      template: find("message-template"),
      onSeen: (unseen) => setTitle(unseen),
      actions: {
        retry: (nonce) => this.#outbox.retry(nonce),
        discard: (nonce) => this.#outbox.discard(nonce),
      },
    });
    this.#peopleView = new PeopleView(this.#people, this.#username, {
      panel: find("people"),
      button: find("people-button"),
      list: find("people-list"),
      count: find("online"),
      more: find("people-more"),
      typing: find("typing"),
    });
    this.#composer = new Composer(find("composer"), {
      send: (text) => this.#send(text),
      onChange: (writing) => {
        this.#connection.typing(writing);
        this.#log.keepPlace();
      },
      drafts: tab,
      draftKey: this.#draftKey,
    });
    this.#listen();
    this.#show(this.#connection.state);
    this.#connection.start();
    this.#composer.focus();
  }

  /** `for good`: the person logged out, and leaves nothing for the next one at this browser. */
  close(forGood) {
    this.#connection.stop();
    this.#timeline.close();
    this.#log.close();
    this.#peopleView.close();
    this.#composer.close();
    this.#error.hidden = true;
    if (!forGood) return;
    this.#outbox.clear();
    tab.delete(this.#draftKey);
  }

  network(available) {
    this.#connection.network(available);
  }

  shown() {
    this.#connection.wake();
    this.#log.relabelDays();
    this.#log.seen();
  }

  midnight() {
    this.#log.relabelDays();
  }

  say(words) {
    this.#error.textContent = words;
    this.#error.hidden = !words;
  }

  #listen() {
    const on = (type, handle) => this.#connection.addEventListener(type, ({ detail }) => handle(detail));
    on("state", (state) => this.#show(state));
    on("welcome", (frame) => {
      this.#people.take(frame);
      this.#timeline.recover();
    });
    on("forget", ({ last_id }) => this.#timeline.forget(last_id));
    on("gap", ({ after, last_id }) => this.#timeline.missed(after, last_id));
    on("message", (message) => {
      this.#timeline.receive(message);
      this.#people.silent(message.username);
      if (message.username !== this.#username && isHidden()) notify(message);
    });
    on("ack", ({ nonce, id }) => this.#timeline.acknowledge(nonce, id));
    on("people", (frame) => this.#people.take(frame));
    on("ended", () => session.expire(this.#token));
  }

  #show(state) {
    const status = find("connection");
    status.dataset.state = state;
    status.textContent = STATES.get(state);
    const unreached = state === "reconnecting" || state === "offline";
    find("away").hidden = !unreached || this.#connection.lastId !== null;
    if (state !== "online") this.#people.clearTyping();
  }

  #send(text) {
    if (this.#outbox.full) {
      this.say("Too many messages are waiting to be sent. Try again once there is a connection.");
      return false;
    }
    this.say("");
    this.#outbox.add(text, this.#username, this.#connection.lastId ?? 0);
    this.#log.toLatest();
    return true;
  }

  async #fetchPage(range) {
    // Without a connection there is no server to ask; with the next one it is asked again.
    if (this.#connection.state !== "online") throw new ApiError("unreachable", "not connected");
    try {
      return await fetchMessages(this.#token, range);
    } catch (error) {
      if (error.code === "unauthorized") session.expire(this.#token);
      throw error;
    }
  }
}

const STATES = new Map([
  ["connecting", "Connecting…"],
  ["online", "Online"],
  ["reconnecting", "Reconnecting…"],
  ["offline", "Offline"],
]);

function setTitle(unseen) {
  const title = unseen > 0 ? `(${unseen}) ${TITLE}` : TITLE;
  if (document.title !== title) document.title = title;
}

/** Shows what the session says. `words` tell why the form is there. */
function showView(words, forGood) {
  chat?.close(forGood);
  chat = null;
  setTitle(0);
  document.body.dataset.view = session.token ? "chat" : "welcome";
  if (session.token) chat = new Chat();
  else loginForm.show(words);
}

session.addEventListener("change", ({ detail }) => showView(detail.words, detail.loggedOut));

// Notifications. Asked for only when the button is pressed; remembered for all tabs.

const preferences = new Store("localStorage");
const notifications = find("notifications");

function notificationsOn() {
  return globalThis.Notification?.permission === "granted" && preferences.get(NOTIFICATIONS_KEY) === true;
}

function showNotifications() {
  notifications.ariaPressed = String(notificationsOn());
}

notifications.addEventListener("click", async () => {
  const wanted = !notificationsOn();
  chat?.say("");
  if (wanted && !globalThis.Notification) {
    chat?.say("This browser shows notifications only for pages opened over HTTPS.");
  } else if (wanted && (await Notification.requestPermission()) !== "granted") {
    chat?.say("Notifications are blocked. Allow them for this page in the browser's settings, then press again.");
  } else {
    preferences.set(NOTIFICATIONS_KEY, wanted);
  }
  showNotifications();
});

function notify({ username, content }) {
  if (!notificationsOn()) return;
  // One tag: the newest replaces the one before, also across tabs.
  const options = { body: [...content].slice(0, NOTIFICATION_LENGTH).join(""), tag: "chinwag", icon: "/icons/icon-192.png" };
  try {
    const notification = new Notification(username, options);
    notification.onclick = () => {
      window.focus();
      notification.close();
    };
  } catch {
    // On Android only a service worker may show one.
    navigator.serviceWorker?.ready.then((registration) => registration.showNotification(username, options));
  }
}

// What happens around the page.

find("log-out").addEventListener("click", () => session.logOut());
addEventListener("storage", showNotifications);
addEventListener("online", () => networkChanged(true));
addEventListener("offline", () => networkChanged(false));
addEventListener("pageshow", ({ persisted }) => persisted && chat?.shown());
document.addEventListener("visibilitychange", () => !isHidden() && chat?.shown());

function networkChanged(available) {
  if (chat) chat.network(available);
  else loginForm.say(available ? "" : NO_NETWORK);
}

/** Opened from the service worker's copy, the form cannot tell by itself whether there is a server behind it. */
async function watchServer(told = false) {
  if (session.token) return;
  try {
    await health();
    if (told) loginForm.say("");
  } catch {
    loginForm.say(navigator.onLine ? NO_SERVER : NO_NETWORK);
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

showNotifications();
atMidnight();
showView("");
if (navigator.serviceWorker?.controller) watchServer();
navigator.serviceWorker?.register("/sw.js", { type: "module", updateViaCache: "none" }).catch(() => {
  // Without it the page works as before, but opens with a network only.
});
