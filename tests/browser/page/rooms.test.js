// Rooms: opening them, what is unread in them, where one left off, their addresses; and what comes and goes.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { Person, Server, becomes, eventually, launch, setHidden } from "../harness.js";

let server, browser, ada, grace, tokens, runs;

before(async () => {
  server = await Server.start();
  browser = await launch();
  ada = await Person.join(browser, server.url, "ada");
  grace = await Person.join(browser, server.url, "grace");
  tokens = { ada: await ada.token(), grace: await grace.token() };
  runs = await server.ask(tokens.ada, "POST", "/rooms", { name: "School runs", kind: "open", emoji: "🎒", topic: "Who takes whom" });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

afterEach(() => {
  for (const person of [ada, grace]) person.assertQuiet();
});

/** Resolves once something has come to stand between two heights. */
async function isBetween(top, what, bottom) {
  await what.waitFor();
  await eventually(async () => {
    const y = (await what.boundingBox())?.y;
    assert.ok(y > top && y < bottom, `it is at ${y}`);
  });
}

const post = (name, content, room) => server.ask(tokens[name], "POST", "/messages", { content, room });

test("a room that is made is there for everybody, and opening it gives it an address", async () => {
  await grace.link("School runs").waitFor();
  await grace.open("School runs");
  await becomes(() => new URL(grace.page.url()).hash, `#/room/${runs.id}`);
  await becomes(() => grace.link("School runs").getAttribute("aria-current"), "page");
  await grace.text("Who takes whom").waitFor();
  await grace.hasFocus("Message");
  await becomes(() => grace.page.locator("h1").count(), 1);
  await grace.say("hello room");
  await grace.sees("hello room");
});

test("what is unread is said of a room, and in the title", async () => {
  await ada.link("School runs, 1 unread").waitFor();
  await grace.say("@ada have a look");
  await ada.link("School runs, 2 unread, 1 mention").waitFor();
  await ada.until(() => document.title.startsWith("(2) "));
});

test("where one left off there is a line, until one writes", async () => {
  await ada.open("School runs");
  await ada.sees("@ada have a look");
  await ada.separator("2 new messages").waitFor();
  // Seen is read.
  await ada.link("School runs").waitFor();
  await ada.until(() => !document.title.startsWith("("));
  await ada.say("I did");
  await ada.sees("I did");
  await ada.separator("2 new messages").waitFor({ state: "detached" });
});

test("once one has left the room the line is gone", async () => {
  await ada.open("Lobby");
  await post("grace", "while you were out", runs.id);
  await ada.link("School runs, 1 unread").click();
  await ada.separator("1 new message").waitFor();
  await ada.link("School runs").waitFor();
  await ada.open("Lobby");
  await ada.open("School runs");
  await ada.sees("while you were out");
  await becomes(() => ada.separator("1 new message").count(), 0);
});

test("what has been read is not counted as new again", async () => {
  for (const text of ["read at once", "not read yet"]) {
    await setHidden(ada.page, true);
    await post("grace", text, runs.id);
    await ada.sees(text);
    await ada.until((text) => document.querySelector(".fresh + article")?.textContent.includes(text), text);
    await ada.separator("1 new message").waitFor();
    await setHidden(ada.page, false);
    await ada.link("School runs").waitFor();
  }
});

test("who types in a room is shown there only", async () => {
  await ada.box().pressSequentially("hm");
  await grace.text("ada is typing…").waitFor();
  await grace.open("Lobby");
  await becomes(() => grace.page.getByText("is typing").count(), 0);
  await ada.box().fill("");
});

test("back and forward go from room to room, and the last one is open again after a reload", async () => {
  await ada.page.goBack();
  await ada.heading("Lobby").waitFor();
  await ada.page.goForward();
  await ada.heading("School runs").waitFor();
  await ada.page.goto(server.url);
  await ada.heading("School runs").waitFor();
  await ada.online();
});

test("a draft belongs to its room", async () => {
  await ada.box().fill("not yet");
  await ada.open("Lobby");
  await becomes(() => ada.box().inputValue(), "");
  await ada.open("School runs");
  await becomes(() => ada.box().inputValue(), "not yet");
  await ada.box().fill("");
});

test("a conversation of two is named after the other", async () => {
  const direct = await server.ask(tokens.grace, "POST", "/direct", { username: "ada" });
  await ada.link("grace").waitFor();
  await grace.link("ada").waitFor();
  await post("grace", "psst", direct.id);
  await ada.link("grace, 1 unread").click();
  await ada.sees("psst");
  await ada.heading("grace").waitFor();
});

test("what is read on one device is read on the other", async () => {
  const elsewhere = await Person.visit(browser, server.url, { name: "ada" });
  await elsewhere.logIn();
  await elsewhere.open("School runs");
  await post("grace", "for both", 1);
  for (const device of [ada, elsewhere]) await device.link("Lobby, 1 unread").waitFor();
  await elsewhere.open("Lobby");
  await elsewhere.sees("for both");
  await ada.link("Lobby").waitFor();
  await elsewhere.leave();
});

test("who is taken out of a room is told, and sees nothing more of it", async () => {
  const party = await server.ask(tokens.ada, "POST", "/rooms", { name: "Party", kind: "private", members: ["grace"] });
  await grace.open("Party");
  await server.ask(tokens.ada, "DELETE", `/rooms/${party.id}/members/grace`);
  await grace.heading("Lobby").waitFor();
  await grace.alert().filter({ hasText: "cannot read that room" }).waitFor();
  await grace.link("Party").waitFor({ state: "detached" });
  await grace.button("Dismiss").click();
  await grace.hasFocus("Message");
});

test("in an archived room nothing can be written", async () => {
  const past = await server.ask(tokens.ada, "POST", "/rooms", { name: "Past", kind: "open" });
  await server.ask(tokens.ada, "PATCH", `/rooms/${past.id}`, { archived: true });
  await ada.open("Past");
  await ada.until(() => document.querySelector("textarea").disabled);
  for (const name of ["Add picture", "Emoji", "Send"]) await becomes(() => ada.button(name).isDisabled(), true);
  await ada.button("Say hello 👋").click();
  assert.equal(await ada.box().inputValue(), "");
  const isLeftAlone = await ada.log().evaluate((log) => {
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File(["a picture"], "a.png", { type: "image/png" }));
    return log.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
  });
  assert.ok(isLeftAlone);
});

test("who was taken out of a room and put back while away sees it as it is now", async () => {
  const choir = await server.ask(tokens.ada, "POST", "/rooms", { name: "Choir", kind: "private", members: ["grace"] });
  const deleted = await post("ada", "to be deleted", choir.id);
  await grace.open("Choir");
  await grace.sees("to be deleted");
  await grace.page.context().setOffline(true);
  await grace.is(/^Offline/);
  await server.ask(tokens.ada, "DELETE", `/rooms/${choir.id}/members/grace`);
  await post("ada", "while grace was out", choir.id);
  await server.ask(tokens.ada, "DELETE", `/messages/${deleted.id}`);
  await server.ask(tokens.ada, "PUT", `/rooms/${choir.id}/members/grace`);
  await grace.page.context().setOffline(false);
  await grace.online();
  await grace.sees("while grace was out");
  await grace.article("to be deleted").waitFor({ state: "detached" });
  await grace.heading("Choir").waitFor();
});

test("with much unread a room opens where one left off, and a button leads to the end", async () => {
  const busy = await server.ask(tokens.ada, "POST", "/rooms", { name: "Busy", kind: "open" });
  for (let n = 0; n < 200; n += 1) await post("grace", `busy ${n}. ${"and so on ".repeat(n % 17)}`, busy.id);
  await ada.link("Busy, 200 unread").click();
  const line = ada.separator("200 new messages");
  await isBetween(50, line, 600);
  await ada.page.getByRole("button", { name: "new messages" }).click();
  await ada.sees("busy 199.");
  await ada.link("Busy").waitFor();
});

test("the page opens where one left off, too", async () => {
  await ada.page.goto("about:blank");
  const { id } = (await server.ask(tokens.ada, "GET", "/rooms")).rooms.find(({ name }) => name === "Busy");
  for (let n = 0; n < 150; n += 1) await post("grace", `more ${n}. ${"and so on ".repeat(n % 17)}`, id);
  await ada.page.goto(server.url);
  await ada.heading("Busy").waitFor();
  await ada.separator("150 new messages").waitFor();
  await ada.article("more 0.").waitFor();
  await ada.page.getByRole("button", { name: "new messages" }).click();
  await ada.sees("more 149.");
});

test("it opens there too when its end is shown before it is known what is unread", async () => {
  await ada.page.goto("about:blank");
  const { id } = (await server.ask(tokens.ada, "GET", "/rooms")).rooms.find(({ name }) => name === "Busy");
  for (let n = 0; n < 90; n += 1) await post("grace", `late ${n}. ${"and so on ".repeat(n % 17)}`, id);
  const endShown = () => ada.article("late 89.").waitFor();
  const framePassed = () => ada.page.evaluate(() => new Promise((passed) => requestAnimationFrame(() => requestAnimationFrame(passed))));
  for (const [path, held] of [["**/rooms", endShown], ["**/messages?*around=*", framePassed]]) {
    await ada.page.route(path, (route) => held().then(() => route.continue()), { times: 1 });
  }
  await ada.page.goto(server.url);
  const line = ada.separator("90 new messages");
  await isBetween(50, line, 600);
  await ada.button("90 new messages").click();
  await ada.sees("late 89.");
  await ada.link("Busy").waitFor();
});

test("who left a room while reading far back comes back to its end", async () => {
  await ada.wheelUp(3_000);
  await ada.open("Lobby");
  await ada.open("Busy");
  await ada.sees("late 89.");
  await ada.until(() => document.querySelector("#jump").hidden);
  await isBetween(-800, ada.article("late 89."), 800);
});

test("the rooms that were open last are there at once, and are up to date", async () => {
  const names = [1, 2, 3, 4, 5, 6].map((n) => `Corridor ${n}`);
  const made = [];
  for (const name of names) {
    made.push(await server.ask(tokens.ada, "POST", "/rooms", { name, kind: "open" }));
    await post("ada", `the first of ${name}`, made.at(-1).id);
  }
  const ida = await Person.join(browser, server.url, "ida");
  const visit = async (name, text = `the first of ${name}`) => {
    ida.requests.length = 0;
    await ida.open(name);
    await ida.sees(text);
    return ida.requests.filter((address) => address.includes("/messages?")).length;
  };
  for (const name of names) assert.equal(await visit(name), 1, name);
  await post("ada", "meanwhile", made[0].id);
  await ida.link("Corridor 1, 1 unread").waitFor();
  assert.equal(await visit("Corridor 1", "meanwhile"), 0);
  assert.equal(await visit("Corridor 3"), 0);
  // The seventh takes the place of the one that was left longest ago.
  await ida.open("Lobby");
  assert.equal(await visit("Corridor 3"), 0);
  assert.equal(await visit("Corridor 2"), 1);
  ida.assertQuiet();
  await ida.leave();
});

test("an empty room says that it is quiet, and the one that is opened next does not", async () => {
  const quiet = ada.page.getByRole("heading", { name: "It is quiet in here." });
  await server.ask(tokens.ada, "POST", "/rooms", { name: "Attic", kind: "open" });
  await ada.open("Corridor 1");
  await ada.open("Attic");
  await quiet.waitFor();
  await ada.open("Corridor 1");
  await ada.sees("meanwhile");
  await becomes(() => quiet.isVisible(), false);
});

test("a message has an address: it opens around it and marks it, also after a reload", async () => {
  const { rooms } = await server.ask(tokens.ada, "GET", "/rooms");
  const { id } = rooms.find(({ name }) => name === "Busy");
  const { messages } = await server.ask(tokens.ada, "GET", `/messages?room=${id}&limit=100&after=0`);
  const message = messages[20];
  const isMarked = async () => {
    await ada.wasMarked(message.id);
    await isBetween(60, ada.article(message.content), 700);
  };
  await ada.page.goto(`${server.url}/#/room/${id}/m/${message.id}`);
  await isMarked();
  await ada.page.reload();
  await isMarked();
  await ada.page.goto(`${server.url}/#/room/${id}/m/${message.id + 100_000}`);
  await ada.alert().filter({ hasText: "not here any more" }).waitFor();
});

test("a room that one cannot read leads to the lobby", async () => {
  await ada.page.goto(`${server.url}/#/room/99999`);
  await ada.heading("Lobby").waitFor();
});

test("where it is narrow the rooms are a sheet, which Escape closes", async () => {
  await grace.page.setViewportSize({ width: 390, height: 800 });
  const button = grace.button("Rooms");
  await becomes(() => button.getAttribute("aria-expanded"), "false");
  await becomes(() => grace.link("School runs").isVisible(), false);
  await button.click();
  await becomes(() => button.getAttribute("aria-expanded"), "true");
  await grace.link("School runs").waitFor();
  await grace.page.keyboard.press("Escape");
  await becomes(() => button.getAttribute("aria-expanded"), "false");
  await grace.hasFocus("Rooms");
  await button.click();
  await grace.link("School runs").click();
  await grace.heading("School runs").waitFor();
  await becomes(() => button.getAttribute("aria-expanded"), "false");
});

test("the sheet has the newest first, each with what was said last and when", async () => {
  await post("ada", "who takes `them` today?", runs.id);
  await post("ada", "last of all", 1);
  await grace.button("Rooms").click();
  const places = grace.rooms().getByRole("list", { name: "Rooms" }).getByRole("listitem");
  await eventually(async () => assert.match(await places.first().innerText(), /\sLobby, 1 unread\s+ada: last of all\s+\d{1,2}:\d\d\s[AP]M/));
  await eventually(async () => assert.match(await places.nth(1).innerText(), /School runs\s+ada: who takes them today\?\s/));
  await grace.page.keyboard.press("Escape");
});

test("a room that is made from the sheet is not behind it", async () => {
  await grace.button("Rooms").click();
  await grace.button("New room").click();
  const dialog = grace.page.getByRole("dialog", { name: "New room" });
  await dialog.getByRole("textbox", { name: "Name" }).fill("Narrow");
  await dialog.getByRole("button", { name: "Make the room" }).click();
  await grace.heading("Narrow").waitFor();
  await becomes(() => grace.button("Rooms").getAttribute("aria-expanded"), "false");
  await grace.box().click();
  await grace.hasFocus("Message");
});
