// What says how things stand: marks in the list of rooms, the app's badge, the strip of the connection, the state of a message.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";

import { Person, Robot, Server, becomes, eventually, launch, setHidden } from "../harness.js";

let server, browser, ada, grace;

before(async () => {
  server = await Server.start();
  browser = await launch();
  ada = await Person.join(browser, server.url, "ada");
  grace = await Person.join(browser, server.url, "grace");
  await server.ask(await ada.token(), "POST", "/rooms", { name: "School runs", kind: "open" });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

afterEach(() => {
  for (const person of [ada, grace]) person.assertQuiet();
});

test("a room has a mark where somebody types in it, and where one has begun to write", async () => {
  await ada.box().fill("half a thought");
  await ada.open("School runs");
  const lobby = ada.link("Lobby");
  // Wide and narrow it stands in different places.
  const draft = lobby.locator(":text-is('Draft'):visible");
  await draft.waitFor();
  await eventually(async () => assert.match((await lobby.getAttribute("title")) ?? "", /Draft/));
  await grace.box().pressSequentially("well");
  const dots = lobby.locator(".typing-dots:visible").first();
  await dots.waitFor();
  await dots.waitFor({ state: "detached" });
  await draft.waitFor();
  await grace.box().fill("");
  await ada.open("Lobby");
  await ada.box().fill("");
  await ada.open("School runs");
  await draft.waitFor({ state: "detached" });
  await ada.open("Lobby");
});

test("a room in which one is mentioned shows it as @1, one with other news a count", async () => {
  const id = (await server.ask(await grace.token(), "GET", "/rooms")).rooms.find(({ name }) => name === "School runs").id;
  const badge = (name) => ada.link(name).locator(".badge:visible");
  const robot = await Robot.join(server, "Radia");
  await robot.say("who drives?", { room: id });
  await becomes(() => badge("School runs, 1 unread").allTextContents(), ["1"]);
  await robot.say("@ada can you?", { room: id });
  await becomes(() => badge("School runs, 2 unread, 1 mention").allTextContents(), ["@1"]);
  const weight = () => ada.link("School runs, 2 unread, 1 mention").locator("bdi").evaluate((name) => Number(getComputedStyle(name).fontWeight));
  await eventually(async () => assert.ok((await weight()) >= 600, "it is bold"));
  await ada.open("School runs");
  await becomes(() => badge("School runs").count(), 0);
  await ada.open("Lobby");
  robot.leave();
});

test("where all colours are the person's own, dots, ticks and what has the focus are still drawn", async () => {
  await ada.page.emulateMedia({ forcedColors: "active" });
  await ada.say("in two colours");
  await ada.sees("in two colours");
  const drawn = (locator, pseudo) =>
    locator.evaluate((element, pseudo) => {
      const { outlineStyle, outlineWidth, borderTopStyle, content } = getComputedStyle(element, pseudo);
      return { outlined: outlineStyle !== "none" && Number.parseFloat(outlineWidth) >= 1, bordered: borderTopStyle !== "none", content };
    }, pseudo);
  const bubble = ada.article("in two colours").locator(".bubble");
  await eventually(async () => assert.ok((await drawn(bubble)).bordered));
  await eventually(async () => assert.match((await drawn(ada.article("in two colours").getByRole("img", { name: "Stored" }), "::before")).content, /✓/));
  await eventually(async () => assert.ok((await drawn(ada.link("Lobby"))).outlined));
  await eventually(async () => assert.ok((await drawn(ada.page.locator("form.composer"))).outlined));
  await ada.open("School runs");
  await grace.box().pressSequentially("well");
  // Looked at in the page, where they are gone after six seconds.
  await ada.until(() => {
    const dot = document.querySelector(".place .typing-dots i");
    return dot && getComputedStyle(dot).backgroundColor !== getComputedStyle(document.body).backgroundColor;
  });
  await grace.box().fill("");
  await ada.open("Lobby");
  await ada.page.emulateMedia({ forcedColors: null });
});

test("the app's badge counts what is unread, and is gone once it is read", async () => {
  const badge = (count) => ada.until((count) => window.badge === count, count);
  await ada.page.addInitScript(() => {
    navigator.setAppBadge = async (count) => void (window.badge = count);
    navigator.clearAppBadge = async () => void (window.badge = 0);
  });
  await ada.page.reload();
  await ada.online();
  await badge(0);
  await setHidden(ada.page, true);
  for (const text of ["one", "two", "three"]) await grace.say(text);
  await badge(3);
  await setHidden(ada.page, false);
  await badge(0);
});

test("Ctrl K or ⌘ K finds people, and opens a conversation with them", async () => {
  await ada.page.keyboard.press("Meta+k");
  await ada.page.getByRole("combobox", { name: "Find rooms, people, messages" }).fill("gra");
  await ada.page.getByRole("option", { name: /^grace/ }).click();
  await ada.heading("grace").waitFor();
  await ada.link("grace").and(ada.page.locator("[aria-current]")).waitFor();
  await ada.open("Lobby");
});

test("what is on its way says so, and has a tick once it is stored", async () => {
  const eve = await Person.visit(browser, server.url, { name: "eve" });
  const held = [];
  let hold = true;
  await eve.page.routeWebSocket("**/ws", (page) => {
    const far = page.connectToServer();
    page.onMessage((data) => (hold && JSON.parse(data).type === "message" ? held.push(() => far.send(data)) : far.send(data)));
  });
  await eve.signUp();
  await eve.say("on its way");
  const article = eve.article("on its way");
  await article.getByText("Sending…", { exact: true }).waitFor();
  assert.equal(await article.getByRole("img", { name: "Stored" }).count(), 0);
  hold = false;
  held.forEach((send) => send());
  await article.getByRole("img", { name: "Stored" }).waitFor();
  await eve.page.context().setOffline(true);
  await eve.is(/^Offline/);
  await eve.say("later, then");
  await eve.article("later, then").getByText("Waiting for the connection", { exact: true }).waitFor();
  await eve.page.context().setOffline(false);
  await eve.article("later, then").getByRole("img", { name: "Stored" }).waitFor();
  await eve.leave();
});

test("of messages that stand together the last has the time and the tick", async () => {
  for (const text of ["first of two", "second of two"]) await grace.say(text);
  await grace.sees("second of two");
  await grace.article("second of two").getByRole("img", { name: "Stored" }).waitFor();
  await grace.article("second of two").locator("footer time").waitFor();
  await grace.article("first of two").locator("footer").waitFor({ state: "hidden" });
});

test("the strip of the connection says what waits, moves nothing, and goes by itself", async () => {
  const strip = (words) => ada.page.locator(".strip").filter({ hasText: words });
  const place = () => ada.log().boundingBox();
  await strip("").waitFor({ state: "hidden" });
  const before = await place();
  await ada.page.context().setOffline(true);
  await strip("what you write waits here").waitFor();
  await ada.say("from the strip");
  await strip("1 message waits here").waitFor();
  await ada.button("Try now").waitFor();
  await becomes(place, before);
  await ada.page.context().setOffline(false);
  await ada.sees("from the strip");
  await strip("").waitFor({ state: "hidden" });
  await becomes(place, before);
});

for (const width of [320, 1280]) {
  test(`who does not want to wait presses "Try now": ${width} px`, async () => {
    await ada.page.setViewportSize({ width, height: 800 });
    await server.kill();
    await ada.button("Try now").waitFor();
    const tried = ada.page.waitForEvent("websocket");
    await ada.button("Try now").click();
    await tried;
    await server.start();
    for (const person of [ada, grace]) await person.online();
    // The button is gone; on a phone no keyboard comes up.
    await ada.page.locator(width === 320 ? "[role=log]:focus" : "textarea:focus").waitFor();
    await ada.page.setViewportSize({ width: 1280, height: 800 });
  });
}

test("a delete is not read out", async () => {
  for (const text of ["to be deleted", "to be kept"]) await grace.say(text);
  await ada.sees("to be kept");
  await ada.until(() => document.querySelector("[role=log]").ariaLive === "polite");
  await ada.page.evaluate(() => {
    window.heard = [];
    const isRead = (place) => place.closest("[role=log]:not([aria-live=off]), [role=status], [role=alert], [aria-live=polite], [aria-live=assertive]");
    new MutationObserver((changes) => {
      for (const { target, addedNodes } of changes) {
        if (isRead(target)) window.heard.push(...[...addedNodes].map(({ textContent }) => textContent));
      }
    }).observe(document.body, { childList: true, subtree: true });
  });
  await grace.act("to be deleted", "Delete");
  await grace.page.getByRole("alertdialog").getByRole("button", { name: "Delete", exact: true }).click();
  await ada.article("to be deleted").waitFor({ state: "detached" });
  await ada.until(() => document.querySelector("[role=log]").ariaLive === "polite");
  await grace.say("what is news");
  await ada.sees("what is news");
  const heard = await ada.page.evaluate(() => window.heard.filter(Boolean));
  assert.ok(heard.length > 0 && heard.every((text) => text.includes("what is news")), JSON.stringify(heard));
});

test("the link that is copied leads to the message", async () => {
  await ada.page.evaluate(() => (navigator.clipboard.writeText = async (text) => (window.copied = text)));
  await ada.act("to be kept", "Copy link");
  await ada.text("Copied").waitFor();
  const link = await ada.page.evaluate(() => window.copied);
  const again = await Person.open(ada.page.context(), link);
  await again.article("to be kept").waitFor();
  await again.wasMarked(/\d+$/.exec(link)[0]);
  await again.page.close();
});

test("a file that is dropped beside its place leads nowhere", async () => {
  const tools = await ada.page.context().newCDPSession(ada.page);
  const file = `${server.database}.txt`;
  writeFileSync(file, "not a picture");
  const address = ada.page.url();
  const { x, y } = await ada.heading("Lobby").boundingBox();
  const data = { items: [], files: [file], dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) await tools.send("Input.dispatchDragEvent", { type, x, y, data });
  await ada.say("still here");
  await ada.sees("still here");
  assert.equal(ada.page.url(), address);
  assert.equal(ada.page.context().pages().length, 1);
  await ada.leave();
  await grace.leave();
});
