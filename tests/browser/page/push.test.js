// What reaches a device while its page is not looked at. A push service is a browser maker's, so the pushes come from Chromium's
// own tools here, and what the page says to the server is caught on the way; tests/push.rs shows what the server sends.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Person, Server, becomes, eventually, launch, within } from "../harness.js";

const KEY = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";

/** How long one try of a push may take. */
const PUSH_MS = 20_000;

let server, browser;

before(async () => {
  server = await Server.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** Someone whose browser has a push service, on a server that pushes; `told` is what the page says to it. */
async function join(name) {
  const context = await browser.newContext({ permissions: ["notifications"] });
  const told = [];
  await context.route("**/about", async (route) => route.fulfill({ json: { name: "chinwag", push: true, reactions: [], limits: {} } }));
  await context.route("**/push", async (route) => {
    const request = route.request();
    told.push([request.method(), request.postDataJSON()]);
    return request.method() === "GET" ? route.fulfill({ json: { key: KEY } }) : route.fulfill({ status: 204 });
  });
  await context.addInitScript(() => {
    let subscription = null;
    PushManager.prototype.getSubscription = async () => subscription;
    PushManager.prototype.subscribe = async (options) => {
      subscription = {
        endpoint: "https://push.example/a",
        options: {},
        toJSON: () => ({ endpoint: "https://push.example/a", expirationTime: null, keys: { p256dh: "p", auth: "a" } }),
        unsubscribe: async () => ((subscription = null), true),
      };
      globalThis.askedWith = options;
      return subscription;
    };
  });
  const person = await Person.open(context, `${server.url}/`);
  person.name = name;
  await person.signUp();
  await person.page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
  return { person, told };
}

/** Has the browser hand `data` to the page's worker, as when it comes from a push service. */
async function deliver(person, data) {
  const tools = await person.page.context().newCDPSession(person.page);
  const found = new Promise((resolve) => {
    tools.on("ServiceWorker.workerRegistrationUpdated", ({ registrations }) => {
      // Those of earlier people may still be listed; the newest is this one's.
      const ids = registrations.filter(({ scopeURL, isDeleted }) => scopeURL === `${server.url}/` && !isDeleted);
      if (ids.length > 0) resolve(String(Math.max(...ids.map(({ registrationId }) => Number(registrationId)))));
    });
  });
  await tools.send("ServiceWorker.enable");
  const registrationId = await found;
  await tools.send("ServiceWorker.deliverPushMessage", { origin: server.url, registrationId, data });
  await tools.detach();
}

/** The page's worker, once the tools have seen it. */
async function workerOf(person) {
  const context = person.page.context();
  await eventually(() => assert.ok(context.serviceWorkers().length > 0, "there is a worker"));
  return context.serviceWorkers()[0];
}

/** Pushes, until what is to come of it has: Chromium was seen to lose what its tools deliver, and not to answer them. */
async function push(person, data, check) {
  for (let tries = 3; ; tries -= 1) {
    try {
      await within(deliver(person, data), "the push to be delivered", PUSH_MS);
      return await eventually(check, PUSH_MS);
    } catch (error) {
      if (tries === 1) throw error;
    }
  }
}

const shown = (person) =>
  person.page.evaluate(async () => {
    const registration = await navigator.serviceWorker.ready;
    const notifications = await registration.getNotifications();
    return notifications.map(({ title, body, tag, data, silent }) => ({ title, body, tag, data, silent }));
  });

test("with notifications on the device is made known to the server, again at each start, and forgotten when they are off", async () => {
  const { person, told } = await join("Ada");
  await person.button("Notifications").click();
  const wanted = { endpoint: "https://push.example/a", keys: { p256dh: "p", auth: "a" }, what: "all", hides_text: false };
  // On a slow machine the start of the page may come to it only after the press, and say it once more.
  await becomes(() => told.slice(-2), [["GET", null], ["PUT", wanted]]);
  await becomes(() => person.page.evaluate(() => globalThis.askedWith), { userVisibleOnly: true, applicationServerKey: KEY });
  told.length = 0;
  await person.page.reload();
  await person.online();
  await becomes(() => told.slice(-2), [["GET", null], ["PUT", wanted]]);
  told.length = 0;
  await person.button("Notifications").click();
  await becomes(() => told.at(-1), ["DELETE", { endpoint: "https://push.example/a" }]);
  await person.leave();
});

test("however often the server says that it pushes, the device is made known to it once", async () => {
  const { person, told } = await join("Abe");
  const { page } = person;
  await person.button("Notifications").click();
  await eventually(() => assert.equal(told.length, 2));
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  let asked = 0;
  await page.route("**/about", async (route) => {
    // What is asked for after the login comes late.
    if ((asked += 1) > 1) await opened;
    await route.fallback();
  });
  await person.logOut();
  await person.button("Log in").waitFor();
  told.length = 0;
  await person.logIn();
  await eventually(() => assert.deepEqual(told.map(([method]) => method), ["GET", "PUT"]));
  const answered = page.waitForResponse("**/about");
  open();
  await answered;
  await person.button("Notifications").click();
  await eventually(() => assert.deepEqual(told.map(([method]) => method).at(-1), "DELETE"));
  assert.deepEqual(told.map(([method]) => method), ["GET", "PUT", "DELETE"]);
  await person.leave();
});

test("what is pushed is shown with its room, its author and its text, one notification a room", async () => {
  const { person } = await join("Bob");
  const first = { title: "Lobby", body: "ada: hello", tag: "chinwag-1", silent: false, data: { room: 1, message: 7, count: 1 } };
  await push(person, JSON.stringify({ room: 1, message: 7, name: "Lobby", from: "ada", text: "hello", count: 1 }), async () => assert.deepEqual(await shown(person), [first]));
  await push(person, JSON.stringify({ room: 1, message: 9, name: "Lobby", from: "eve", text: "again", count: 3 }), async () => {
    const [only, ...others] = await shown(person);
    assert.equal(only?.body, "3 new messages\neve: again");
    assert.deepEqual(others, []);
  });
  // A direct message, with the text hidden.
  await push(person, JSON.stringify({ room: 5, message: 11, from: "ada", count: 1 }), async () =>
    assert.deepEqual((await shown(person)).map(({ title, body }) => [title, body]).sort(), [["Lobby", "3 new messages\neve: again"], ["ada", "A new message"]]),
  );
  await person.leave();
});

test("in quiet hours what is pushed is shown without a sound", async () => {
  const { person, told } = await join("Eve");
  await person.page.evaluate(() => localStorage.setItem("chinwag.prefs/quiet", "[0,1440]"));
  await person.button("Notifications").click();
  await becomes(() => told.at(-1)?.[0], "PUT");
  await eventually(async () => assert.ok(await person.page.evaluate(() => caches.match(new URL("words", location.href)).then(Boolean))));
  await push(person, JSON.stringify({ room: 1, message: 7, name: "Lobby", from: "ada", text: "hello", count: 1 }), async () => assert.deepEqual((await shown(person)).map(({ silent }) => silent), [true]));
  await person.leave();
});

test("whatever comes, something is shown", async () => {
  const { person } = await join("Cleo");
  await push(person, "no JSON", async () => assert.deepEqual((await shown(person)).map(({ title, body }) => [title, body]), [["chinwag", "A new message"]]));
  const worker = await workerOf(person);
  await worker.evaluate(() => {
    CacheStorage.prototype.open = () => Promise.reject(new Error("the disk is full"));
  });
  await push(person, JSON.stringify({ room: 41, message: 7, name: "Plans", from: "ada", text: "hello", count: 1 }), async () => assert.ok((await shown(person)).some(({ body }) => body === "ada: hello")));
  await person.leave();
});

test("a pressed notification opens its room", async () => {
  const { person } = await join("Dan");
  await push(person, JSON.stringify({ room: 4242, message: 7, name: "Plans", from: "ada", text: "hello", count: 1 }), async () => assert.equal((await shown(person)).length, 1));
  const worker = await workerOf(person);
  await worker.evaluate(async () => {
    // Only a real press lets a worker bring a page to the front.
    WindowClient.prototype.focus = async function () {
      return this;
    };
    const [notification] = await registration.getNotifications();
    dispatchEvent(new NotificationEvent("notificationclick", { notification }));
  });
  await person.page.waitForURL(/#\/room\/4242/);
  await becomes(() => shown(person), []);
  await person.leave();
});

test("where no page is open, a pressed notification opens one in its room", async () => {
  const { person } = await join("Finn");
  await push(person, JSON.stringify({ room: 4242, message: 7, name: "Plans", from: "ada", text: "hello", count: 1 }), async () => assert.equal((await shown(person)).length, 1));
  const worker = await workerOf(person);
  await person.page.goto("about:blank");
  const pressed = worker.evaluate(async () => {
    // The page that was left is a client for a moment yet.
    while ((await clients.matchAll({ type: "window", includeUncontrolled: true })).length > 0) await new Promise((done) => setTimeout(done, 20));
    // Only a real press lets a worker open a page.
    const address = new Promise((resolve) => (Clients.prototype.openWindow = async (url) => resolve(String(url))));
    const [notification] = await registration.getNotifications();
    dispatchEvent(new NotificationEvent("notificationclick", { notification }));
    return address;
  });
  const opened = await within(pressed, "a page to be opened");
  assert.equal(opened, `${server.url}/#/room/4242`);
  await person.page.goto(opened);
  await person.online();
  await becomes(() => shown(person), []);
  await person.leave();
});

test("the app's badge counts what was pushed and not looked at", async () => {
  const { person } = await join("Gil");
  const worker = await workerOf(person);
  await worker.evaluate(() => {
    navigator.setAppBadge = async (count) => (globalThis.badge = count);
    navigator.clearAppBadge = async () => (globalThis.badge = 0);
  });
  const badge = () => worker.evaluate(() => globalThis.badge);
  await push(person, JSON.stringify({ room: 41, message: 7, name: "Plans", from: "ada", text: "hello", count: 3 }), async () => assert.equal(await badge(), 3));
  await push(person, JSON.stringify({ room: 42, message: 8, name: "Lunch", from: "ada", text: "hello", count: 1 }), async () => assert.equal(await badge(), 4));
  await worker.evaluate(async () => {
    WindowClient.prototype.focus = async function () {
      return this;
    };
    const [notification] = await registration.getNotifications({ tag: "chinwag-41" });
    dispatchEvent(new NotificationEvent("notificationclick", { notification }));
  });
  await eventually(async () => assert.equal(await badge(), 1));
  await person.leave();
});

test("what an open page has told of already does not ring again when it is pushed", async () => {
  const { person } = await join("Hal");
  await person.page.evaluate(async () => {
    const registration = await navigator.serviceWorker.ready;
    await registration.showNotification("ada", { body: "hello", tag: "chinwag-41", data: { room: 41, message: 7 } });
  });
  await push(person, JSON.stringify({ room: 41, message: 7, name: "Plans", from: "ada", text: "hello", count: 1 }), async () => assert.deepEqual((await shown(person)).map(({ title, silent }) => [title, silent]), [["Plans", true]]));
  await push(person, JSON.stringify({ room: 41, message: 9, name: "Plans", from: "ada", text: "and", count: 2 }), async () => assert.deepEqual((await shown(person)).map(({ data, silent }) => [data.message, silent]), [[9, false]]));
  await person.leave();
});

test("after a logout nothing is pushed to the device, even if the server cannot be reached", async () => {
  const { person, told } = await join("Ida");
  await person.button("Notifications").click();
  await eventually(() => assert.equal(told.length, 2));
  const subscription = () => person.page.evaluate(async () => (await (await navigator.serviceWorker.ready).pushManager.getSubscription())?.endpoint);
  assert.equal(await subscription(), "https://push.example/a");
  await person.page.route("**/logout", (route) => route.abort());
  await person.logOut();
  await person.button("Log in").waitFor();
  await eventually(async () => assert.equal(await subscription(), undefined));
  await person.leave();
});

test("a page that is not at https says that notifications need it", async () => {
  // A name that is neither this machine's nor at https is no secure context.
  const plain = await Server.start(["--host", "chat.test", "--registration", "open"]);
  const other = await launch({ flags: ["--host-resolver-rules=MAP chat.test 127.0.0.1"] });
  const person = await Person.join(other, `http://chat.test:${plain.port}`, "Jan");
  await person.button("Notifications").click();
  await person.text("Browsers show notifications only for pages opened over HTTPS. Ask the person who runs this server.").waitFor();
  await other.close();
  await plain.close();
});

test("on an iPhone the page says that only apps on the Home Screen have notifications", async () => {
  const context = await browser.newContext({ userAgent: "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1" });
  await context.addInitScript(() => delete globalThis.Notification);
  const person = await Person.open(context, `${server.url}/`);
  person.name = "Kim";
  await person.signUp();
  await person.button("Notifications").click();
  await person.text('On an iPhone or iPad only apps on the Home Screen have notifications: press Share, then "Add to Home Screen", and open it from there.').waitFor();
  await person.leave();
});
