import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { after, before, test } from "node:test";

import { Person, Server, Wire, becomes, launch } from "../harness.js";

let server, browser;

before(async () => {
  server = await Server.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** Resolves once the worker has what the page was made of before there was a worker. */
const ready = (person) =>
  hasKept(person, async () => {
    await navigator.serviceWorker.ready;
    return performance.getEntriesByType("resource").map(({ name }) => name).filter((name) => /\.(js|css)$/.test(name));
  });

/** Resolves once the worker has all the files that `wanted` names in the page. */
async function hasKept(person, wanted) {
  const files = await person.page.evaluate(wanted);
  const kept = (files) => Promise.all(files.map(async (file) => Boolean(await caches.match(new URL(file, location.href)))));
  await becomes(() => person.page.evaluate(kept, files), files.map(() => true));
}

/** A reload without a network, which stays away; what the tools make of `navigator.onLine` was seen to end with the page. */
async function reloadOffline({ page }) {
  await page.context().setOffline(true);
  await page.addInitScript(() => {
    let isBack = false;
    Object.defineProperty(navigator, "onLine", { get: () => isBack });
    addEventListener("back", () => {
      isBack = true;
      dispatchEvent(new Event("online"));
    });
  });
  await page.reload();
}

async function giveNetworkBack({ page }) {
  await page.context().setOffline(false);
  await page.evaluate(() => dispatchEvent(new Event("back")));
}

/** Everything the browser has kept in caches, as text. */
const cached = (person) =>
  person.page.evaluate(async () => {
    const kept = [];
    for (const name of await caches.keys()) {
      const cache = await caches.open(name);
      for (const request of await cache.keys()) kept.push(`${name} ${request.url}\n${await (await cache.match(request)).text()}`);
    }
    return kept;
  });

test("without the server the page opens, says so, and comes back by itself", async () => {
  const ada = await Person.join(browser, server.url, "Ada");
  await ada.say("a secret");
  await ada.sees("a secret");
  await ready(ada);
  await server.kill();
  await ada.page.reload();
  await ada.is(/^Reconnecting/);
  await becomes(() => ada.username().isVisible(), false);
  await ada.text("The server cannot be reached.").waitFor();
  await ada.say("written without a server");
  // What waits is not written over.
  await ada.text("The server cannot be reached.").waitFor({ state: "hidden" });
  await server.start();
  await ada.online();
  await ada.sees("a secret");
  await ada.sees("written without a server");
  // What the server says of itself is asked for again, too.
  await (await ada.settings()).getByText(/^chinwag \d/).waitFor();
  await ada.leave();
});

test("without a network too, and a reload there is no logout", async () => {
  const bob = await Person.join(browser, server.url, "Bob");
  await ready(bob);
  await reloadOffline(bob);
  await bob.is(/^Offline/);
  await bob.say("from the tunnel");
  await giveNetworkBack(bob);
  await bob.sees("from the tunnel");
  await bob.leave();
});

test("without a network one logs out, in a dialog that was never opened, also after a reload", async () => {
  const cid = await Person.join(browser, server.url, "Cid");
  await ready(cid);
  await hasKept(cid, () => ["view/dialogs/settings.js", "view/dialogs/settings-panels.js", "view/dialogs/parts.js"]);
  // What a worker asks for gets past the tools.
  await server.kill();
  await reloadOffline(cid);
  await cid.is(/^Offline/);
  await cid.say("never to be sent");
  await cid.logOut();
  await cid.button("Log out and lose them").click();
  await cid.username().waitFor();
  await cid.leave();
  await server.start();
});

test("the form opens as well, and says what is wrong", async () => {
  const eve = await Person.visit(browser, server.url, { name: "Eve" });
  await ready(eve);
  await server.kill();
  await eve.page.reload();
  await eve.page.getByText("The server cannot be reached right now").waitFor();
  await server.start();
  await eve.page.getByText("The server cannot be reached right now").waitFor({ state: "hidden" });
  await eve.signUp();
  await eve.leave();
});

test("below a path of a proxy people talk, and the page opens without the server", async () => {
  const wire = await Wire.to(server.port);
  wire.change = (data) => Buffer.from(data.toString("latin1").replace(/^([A-Z]+ )\/chat\//, "$1/"), "latin1");
  const pat = await Person.join(browser, wire.url, "Pat", { path: "/chat/" });
  await pat.say("below a path");
  await pat.sees("below a path");
  await ready(pat);
  assert.ok(pat.requests.every((url) => new URL(url).pathname.startsWith("/chat/")), pat.requests.join("\n"));
  wire.close();
  await pat.page.reload();
  await pat.is(/^Reconnecting/);
  await pat.leave();
});

test("neither message nor token is kept by the service worker", async () => {
  const fay = await Person.join(browser, server.url, "Fay");
  await fay.say("not for keeping");
  await fay.sees("not for keeping");
  await ready(fay);
  await fay.page.reload();
  await fay.sees("not for keeping");
  const token = await fay.page.evaluate(() => JSON.parse(localStorage.getItem("chinwag.session")).token);
  const kept = await cached(fay);
  assert.ok(kept.length >= 10);
  for (const text of kept) {
    assert.ok(!text.includes(token));
    assert.ok(!text.includes("not for keeping"));
    assert.doesNotMatch(text.split("\n")[0], /messages|login|register|logout|healthz|\/ws/);
  }
  await fay.leave();
});

test("it can be installed", async () => {
  const manifest = await (await fetch(`${server.url}/manifest.webmanifest`)).json();
  assert.ok(manifest.name && manifest.start_url && manifest.display);
  const sizes = manifest.icons.map(({ sizes, purpose }) => `${sizes} ${purpose ?? ""}`.trim());
  for (const wanted of ["192x192", "512x512", "512x512 maskable"]) assert.ok(sizes.includes(wanted), wanted);
  for (const { src, type, sizes } of manifest.icons) {
    const response = await fetch(new URL(src, `${server.url}/manifest.webmanifest`));
    assert.equal(response.headers.get("content-type").split(";")[0], type);
    if (type !== "image/png") continue;
    const bytes = Buffer.from(await response.arrayBuffer());
    assert.equal(`${bytes.readUInt32BE(16)}x${bytes.readUInt32BE(20)}`, sizes);
  }
});

/**
 * Between page and server, and after `upgrade()` a server of another version: each file ends with a mark, and carries and
 * names that version.
 */
class Upgrading {
  #http;
  #upgraded = false;

  /** `tags` are those a proxy leaves, which may be none. */
  constructor(server, { tags = true } = {}) {
    this.#http = createServer((incoming, outgoing) => {
      const upgraded = this.#upgraded;
      const headers = { ...incoming.headers, host: `127.0.0.1:${server.port}`, "accept-encoding": "identity" };
      if (upgraded) delete headers["if-none-match"];
      const forwarded = request({ port: server.port, host: "127.0.0.1", path: incoming.url, method: incoming.method, headers }, async (answer) => {
        const body = Buffer.concat(await answer.toArray());
        const { etag, "content-length": _length, "transfer-encoding": _encoding, ...rest } = answer.headers;
        const isFile = upgraded && etag;
        const named = { ...rest, ...(tags && etag && { etag: isFile ? rename(etag) : etag }) };
        outgoing.writeHead(answer.statusCode, named);
        outgoing.end(isFile && /text|javascript/.test(rest["content-type"]) ? rename(body.toString()) + mark(rest["content-type"]) : body);
      });
      forwarded.on("error", () => outgoing.destroy());
      incoming.pipe(forwarded);
    });
    const version = fetch(`${server.url}/version.js`).then((answer) => answer.text());
    this.version = version.then((text) => /VERSION\s*=\s*"([^"]+)"/.exec(text)[1]);
    const rename = (text) => text.replaceAll(this.old, "f".repeat(this.old.length));
    const mark = (type) => (/html/.test(type) ? "<!-- second -->" : /css|javascript/.test(type) ? "/* second */" : "");
  }

  async listen() {
    this.old = await this.version;
    await new Promise((done) => this.#http.listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${this.#http.address().port}`;
  }

  upgrade() {
    this.#upgraded = true;
  }

  close() {
    this.#http.closeAllConnections();
    this.#http.close();
  }
}

for (const [tags, where] of [[true, ""], [false, ", behind a proxy that takes the ETag away too"]]) {
  test(`after an upgrade of the server no page is made of two versions, and the second reload is the new one${where}`, async () => {
    const upgrading = new Upgrading(server, { tags });
    const url = await upgrading.listen();
    const gus = await Person.visit(browser, url, { name: "Gus" });
    await ready(gus);
    await gus.page.reload();
    /** For each file the page is made of, whether it is of the second version. */
    const second = () =>
      gus.page.evaluate(async () => {
        const files = performance.getEntriesByType("resource").map(({ name }) => name).filter((name) => /\.(js|css)$/.test(name));
        const texts = await Promise.all([location.href, ...files].map(async (name) => (await fetch(name)).text()));
        return texts.map((text) => text.includes("second */") || text.includes("<!-- second"));
      });
    assert.ok((await second()).every((is) => !is));
    upgrading.upgrade();
    const installed = gus.page.evaluate(async () => {
      const registration = await navigator.serviceWorker.ready;
      await registration.update();
      const worker = registration.installing ?? registration.waiting;
      if (worker.state !== "installed") await new Promise((done) => worker.addEventListener("statechange", done, { once: true }));
      return worker.state;
    });
    assert.equal(await installed, "installed");
    assert.ok((await second()).every((is) => !is), "the open page stays as it is");
    await gus.page.reload();
    await gus.username().waitFor();
    await gus.until(() => document.lastChild.nodeValue?.includes("second"));
    const files = await second();
    assert.ok(files.length >= 9 && files.every((is) => is), "the reloaded page is all new");
    assert.equal((await cached(gus)).filter((text) => !text.includes("f".repeat(16))).length, 0);
    await gus.leave();
    upgrading.close();
  });
}

test("a page that is open is told of a new version", async () => {
  const upgrading = new Upgrading(server);
  const hal = await Person.visit(browser, await upgrading.listen());
  await ready(hal);
  // No socket and no login goes through this proxy; what the page says of that is not looked at.
  await hal.page.route("**/messages*", (route) => route.abort());
  const session = { token: await server.token("Hal"), username: "Hal" };
  await hal.page.evaluate((session) => localStorage.setItem("chinwag.session", JSON.stringify(session)), session);
  await hal.page.reload();
  await hal.box().waitFor();
  upgrading.upgrade();
  await hal.page.evaluate(() => navigator.serviceWorker.ready.then((registration) => void registration.update()));
  await hal.alert().filter({ hasText: "There is a new version of this page" }).waitFor();
  await hal.leave();
  upgrading.close();
});
