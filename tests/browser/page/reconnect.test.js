import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Person, Robot, Server, Wire, assertRising, becomes, eventually, launch, launchIn, setHidden, within } from "../harness.js";

let server, browser;

before(async () => {
  server = await Server.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** Every text of `texts` stands in the log once, in this order. */
async function assertOnceInOrder(person, texts) {
  await eventually(async () => {
    const shown = (await person.shown()).filter(({ text }) => texts.includes(text));
    assert.deepEqual(shown.map(({ text }) => text), texts);
    assertRising(shown);
  });
}

test("the server is killed while one person types and sends: nothing lost, nothing doubled", async () => {
  const ada = await Person.join(browser, server.url, "Ada");
  const bob = await Person.join(browser, server.url, "Bob");
  const texts = Array.from({ length: 60 }, (_, n) => `burst ${n}.`);
  for (const [n, text] of texts.entries()) {
    // In the midst of it, with acknowledgements on their way.
    if (n === 20) await server.kill();
    await ada.say(text);
    if (n === 40) await server.start();
  }
  await ada.box().fill("still typing");
  for (const person of [ada, bob]) {
    await person.sees(texts.at(-1));
    await assertOnceInOrder(person, texts);
  }
  await becomes(() => ada.box().inputValue(), "still typing");
  await ada.hasFocus("Message");
  const stored = await server.messages(await server.token("Ada"));
  assert.deepEqual(stored.map(({ content }) => content), texts);
  await ada.leave();
  await bob.leave();
});

test("when the server stops the page tries to come back by itself, until it can", async () => {
  const eve = await Person.join(browser, server.url, "Eve");
  const again = eve.page.waitForEvent("websocket");
  await server.kill("SIGTERM");
  await again;
  await eve.is(/^Reconnecting/);
  await server.start();
  await eve.online();
  await eve.leave();
});

test("a session that ended at a proxy in front is told of, and what was written waits", async () => {
  const pam = await Person.visit(browser, server.url, { name: "Pam" });
  let signedIn = true;
  await pam.page.routeWebSocket("**/ws", (page) => (signedIn ? page.connectToServer() : page.close()));
  await pam.signUp();
  signedIn = false;
  const redirect = (route) => route.fulfill({ status: 302, headers: { Location: "http://elsewhere.example/sign-in" } });
  await pam.page.route("**/messages*", redirect);
  await server.kill();
  await server.start();
  await pam.say("kept until then");
  await pam.alert().filter({ hasText: "sign in first" }).waitFor();
  signedIn = true;
  await pam.page.unroute("**/messages*", redirect);
  await pam.button("Try now").click();
  await pam.sees("kept until then");
  await pam.leave();
});

test("a proxy that drops the port, so that every socket is refused, is told of, until it is put right", async () => {
  const wire = await Wire.to(server.port);
  const ned = await Person.join(browser, wire.url, "Ned");
  const context = ned.page.context();
  await context.setOffline(true);
  await ned.is(/^Offline/);
  const refused = [];
  ned.page.on("websocket", (socket) => socket.on("socketerror", (words) => refused.push(words)));
  wire.change = (data) => Buffer.from(data.toString("latin1").replace(/^(Host: 127\.0\.0\.1):\d+\r$/im, "$1\r"), "latin1");
  await context.setOffline(false);
  await ned.alert().filter({ hasText: "The server answers, but refuses the live connection." }).waitFor();
  await ned.is(/^Reconnecting/);
  // By the server itself, for what it takes for another site's page.
  await eventually(() => assert.ok(refused.some((words) => words.includes("403")), JSON.stringify(refused)));
  wire.change = (data) => data;
  await ned.button("Try now").click();
  await ned.online();
  await ned.leave();
  wire.close();
});

test("a proxy that knows people by its own cookie or password gets it with every request", async () => {
  const context = await browser.newContext();
  await context.addCookies([{ name: "proxy", value: "signed-in", url: server.url }]);
  const requests = [];
  context.on("request", (request) => requests.push(request));
  const ola = await Person.open(context, server.url);
  ola.name = "Ola";
  await ola.signUp();
  for (const path of ["/about", "/register", "/login", "/rooms", "/messages"]) {
    const asked = () => requests.filter((request) => new URL(request.url()).pathname === path);
    await eventually(() => assert.notEqual(asked().length, 0, path));
    for (const request of asked()) {
      const { cookie, authorization } = await request.allHeaders();
      assert.deepEqual([cookie, authorization], ["proxy=signed-in", undefined], path);
    }
  }
  await ola.leave();
});

test("messages written offline show as pending and go by themselves", async () => {
  const fay = await Person.join(browser, server.url, "Fay");
  const context = fay.page.context();
  await context.setOffline(true);
  await fay.is(/^Offline/);
  const texts = ["in the tunnel", "still in the tunnel"];
  for (const text of texts) await fay.say(text);
  await fay.article(texts[1]).waitFor();
  await becomes(async () => (await fay.shown()).slice(-2).map(({ state }) => state), ["pending", "pending"]);
  await context.setOffline(false);
  await fay.online();
  await fay.sees(texts[1]);
  await assertOnceInOrder(fay, texts);
  await fay.leave();
});

test("what is pending survives a reload, under its nonce", async () => {
  const gus = await Person.join(browser, server.url, "Gus");
  await server.kill();
  await gus.say("before the reload");
  const nonce = await gus.article("before the reload").getAttribute("data-nonce");
  await gus.page.reload();
  await becomes(() => gus.article("before the reload").getAttribute("data-nonce"), nonce);
  await becomes(() => gus.username().isVisible(), false);
  await server.start();
  await gus.online();
  await gus.sees("before the reload");
  await gus.leave();
});

test("what waits, and what is being written in each room, survives the browser", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "chinwag-profile-"));
  t.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 10 }));
  const before = await launchIn(directory);
  const kim = await Person.open(before, server.url);
  kim.name = "Kim";
  await kim.signUp();
  const { id } = await server.ask(await kim.token(), "POST", "/rooms", { name: "Cellar", kind: "open" });
  await kim.link("Cellar").waitFor();
  await server.kill();
  await kim.say("before the end");
  await kim.article("before the end").waitFor();
  await kim.box().fill("in the lobby");
  await kim.open("Cellar");
  await kim.box().fill("in the cellar");
  await kim.leave();
  await server.start();
  const after = await launchIn(directory);
  const again = await Person.open(after, `${server.url}/#/room/${id}`);
  await again.online();
  await becomes(() => again.box().inputValue(), "in the cellar");
  await again.open("Lobby");
  await becomes(() => again.box().inputValue(), "in the lobby");
  await again.sees("before the end");
  await again.leave();
});

test("a socket that died without a word is found by the unanswered message, which is sent once", async () => {
  const wire = await Wire.to(server.port);
  const hal = await Person.join(browser, wire.url, "Hal");
  const robot = await Robot.join(server, "Robot");
  wire.cut();
  await hal.say("into the void");
  await robot.say("meanwhile");
  await hal.sees("into the void");
  await hal.sees("meanwhile");
  await eventually(async () => assertRising(await hal.shown()));
  robot.leave();
  await hal.leave();
  wire.close();
});

test("silence of 30 s is questioned, and being shown again questions at once", async () => {
  const wire = await Wire.to(server.port);
  const context = await browser.newContext();
  await context.clock.install();
  const ida = await Person.open(context, wire.url);
  ida.name = "Ida";
  await ida.signUp();
  wire.cut();
  const again = ida.page.waitForEvent("websocket");
  await ida.page.clock.runFor(30_000);
  await ida.page.clock.runFor(10_000);
  await again;
  await ida.online();
  wire.cut();
  await setHidden(ida.page, true);
  // Listened for from before the socket is there: it may open, and say this, while the clock still runs.
  const first = within(
    new Promise((resolve) => ida.page.once("websocket", (socket) => socket.once("framesent", ({ payload }) => resolve(JSON.parse(payload).type)))),
    "the first frame of the next socket",
  );
  await setHidden(ida.page, false);
  await ida.page.clock.runFor(10_000);
  assert.equal(await first, "auth");
  await ida.online();
  await ida.leave();
  wire.close();
});

test("more missed than can be replayed is read from the history, while new ones arrive", async () => {
  const joe = await Person.join(browser, server.url, "Joe");
  const robot = await Robot.join(server, "Flood");
  await joe.page.context().setOffline(true);
  await joe.is(/^Offline/);
  await robot.tell(1_500, (n) => `flood ${n}.`);
  const asked = joe.page.waitForRequest(/\/messages\?.*after=/);
  await joe.page.context().setOffline(false);
  await robot.tell(100, (n) => `and on ${n}.`);
  await asked;
  await joe.sees("and on 99.");
  const all = [...Array(1_500).keys()].map((n) => `flood ${n}.`).concat([...Array(100).keys()].map((n) => `and on ${n}.`));
  await eventually(async () => {
    const shown = await joe.shown();
    assertRising(shown);
    // The window holds the newest of them, without a hole.
    const numbers = shown.map(({ text }) => text).filter((text) => /^(flood|and on) /.test(text));
    assert.deepEqual(numbers, all.slice(-numbers.length));
    assert.ok(numbers.length > 200);
  });
  robot.leave();
  await joe.leave();
});

test("what is refused says why, and Retry sends it under the same nonce", async () => {
  const robot = await Robot.join(server, "Robot2");
  const context = await browser.newContext();
  let refuse = true;
  const nonces = [];
  await context.routeWebSocket("**/ws", (page) => {
    const far = page.connectToServer();
    page.onMessage((data) => {
      const frame = JSON.parse(data);
      if (frame.type === "message") nonces.push(frame.nonce);
      if (frame.type !== "message" || !refuse) return far.send(data);
      page.send(JSON.stringify({ type: "error", code: "invalid_message", message: "This text is not accepted.", nonce: frame.nonce }));
    });
  });
  const lea = await Person.open(context, server.url);
  lea.name = "Lea";
  await lea.signUp();
  await lea.say("take two");
  const failed = lea.article("take two");
  await failed.and(lea.page.locator("[data-state=failed]")).waitFor();
  await failed.getByText("This text is not accepted.").waitFor();
  await lea.page.reload();
  await failed.and(lea.page.locator("[data-state=failed]")).waitFor();
  refuse = false;
  await failed.getByRole("button", { name: "Retry" }).press("Enter");
  await lea.hasFocus("Messages");
  await lea.sees("take two");
  assert.equal(nonces[0], nonces[1]);
  const heard = await robot.hears(({ content }) => content === "take two");
  assert.equal(heard.username, "Lea");
  robot.leave();
  await lea.leave();
});

test("a person who is too fast waits as the server says, and everything arrives in order", async () => {
  const slow = await Server.start(["--message-rate", "5", "--auth-rate", "0"]);
  const max = await Person.join(browser, slow.url, "Max");
  const texts = Array.from({ length: 25 }, (_, n) => `fast ${n}.`);
  for (const text of texts) await max.say(text);
  await max.sees(texts.at(-1));
  await assertOnceInOrder(max, texts);
  await max.leave();
  await slow.close();
});
