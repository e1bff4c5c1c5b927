// What people do in dialogs: settings, rooms, people, invitations; by the roles and names of the page's contract.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";

import german from "../../../public/i18n/de.js";
import { LANGUAGES } from "../../../public/i18n/index.js";
import { PASSWORD, Person, Robot, Server, assertAccessible, becomes, eventually, launch } from "../harness.js";

let server, browser, ada, grace;

before(async () => {
  server = await Server.start();
  browser = await launch();
  // The first account is a moderator.
  ada = await Person.join(browser, server.url, "ada");
  grace = await Person.join(browser, server.url, "grace");
});

after(async () => {
  await browser?.close();
  await server?.close();
});

afterEach(async () => {
  for (const person of [ada, grace]) {
    person.assertQuiet();
    while ((await person.page.locator("dialog[open]").count()) > 0) await person.page.keyboard.press("Escape");
  }
});

const dialog = (person, name) => person.page.getByRole("dialog", { name, exact: true });
const alertdialog = (person) => person.page.getByRole("alertdialog");
const tab = (person, name) => person.page.getByRole("tab", { name, exact: true });
const field = (within, name) => within.getByRole("textbox", { name, exact: true });
const button = (within, name) => within.getByRole("button", { name, exact: true });
const room = (person, name) => person.page.getByRole("navigation", { name: "Rooms" }).getByRole("link", { name });

async function settings(person, name) {
  const opened = await person.settings();
  await tab(person, name).click();
  return opened;
}

async function newRoom(person, name, ...members) {
  await person.button("New room").click();
  const opened = dialog(person, "New room");
  await field(opened, "Name").fill(name);
  if (members.length > 0) {
    await opened.getByText("Those invited").click();
    for (const member of members) await opened.getByRole("button", { name: member, exact: true, pressed: false }).click();
  }
  await button(opened, "Make the room").click();
  return opened;
}

test("the tabs of Settings go by arrow keys, and Escape gives the focus back to its button", async () => {
  const opened = await ada.settings();
  await becomes(() => opened.getByRole("tab").allTextContents(), ["You", "Notifications", "Looks", "Devices", "Help"]);
  await ada.page.keyboard.press("ArrowDown");
  await opened.getByRole("tabpanel", { name: "Notifications" }).waitFor();
  await ada.page.keyboard.press("End");
  await opened.getByRole("tabpanel", { name: "Help" }).waitFor();
  await ada.page.keyboard.press("Escape");
  await opened.waitFor({ state: "detached" });
  await ada.hasFocus("Settings");
});

test("two presses open one dialog", async () => {
  await ada.button("Room").evaluate((button) => {
    button.click();
    button.click();
  });
  await dialog(ada, "Lobby").waitFor();
  await ada.page.keyboard.press("Escape");
  await dialog(ada, "Lobby").waitFor({ state: "detached" });
});

test("a press beside a dialog closes it, and the focus is where it was", async () => {
  const opened = await ada.settings();
  await ada.page.mouse.click(5, 5);
  await opened.waitFor({ state: "detached" });
  await ada.hasFocus("Settings");
});

test("a press on a dialog's own edge leaves it open, and what was typed in it", async () => {
  await ada.button("New room").click();
  const opened = dialog(ada, "New room");
  await field(opened, "Name").fill("Half a name");
  const { x, y, height } = await opened.boundingBox();
  await ada.page.mouse.click(x + 6, y + height / 2);
  await becomes(() => field(opened, "Name").inputValue(), "Half a name");
});

test("a press that ends beside a dialog, as where text is selected, leaves it open", async () => {
  await ada.button("New room").click();
  const name = field(dialog(ada, "New room"), "Name");
  await name.fill("Half a name");
  const { x, y } = await name.boundingBox();
  await ada.page.mouse.move(x + 60, y + 10);
  await ada.page.mouse.down();
  await ada.page.mouse.move(5, 300);
  await ada.page.mouse.up();
  await becomes(() => name.inputValue(), "Half a name");
});

test("? opens the help, and is a letter where one writes", async () => {
  await ada.box().fill("");
  await ada.box().press("?");
  await becomes(() => ada.box().inputValue(), "?");
  await ada.box().fill("");
  await ada.button("Room").focus();
  await ada.page.keyboard.press("?");
  await dialog(ada, "Settings").getByRole("tabpanel", { name: "Help" }).waitFor();
});

test("a theme is taken at once and kept", async () => {
  const theme = () => ada.page.evaluate(() => document.documentElement.dataset.theme);
  await settings(ada, "Looks");
  await ada.text("Dark").click();
  await becomes(() => theme(), "dark");
  await ada.page.reload();
  await ada.online();
  await becomes(() => theme(), "dark");
  await settings(ada, "Looks");
  await ada.page.getByRole("radio", { name: "As this device" }).check({ force: true });
  await becomes(() => theme(), undefined);
});

test("a choice leaves Settings open and the focus where it is", async () => {
  const opened = await settings(ada, "Looks");
  const control = opened.getByRole("switch", { name: "Enter sends" });
  await control.focus();
  const before = await opened.elementHandle();
  for (const checked of ["false", "true"]) {
    await ada.page.keyboard.press("Space");
    await ada.page.locator(`[role=switch][aria-checked=${checked}]:focus`).waitFor();
  }
  await becomes(() => before.evaluate((dialog) => dialog.isConnected), true);
});

test("another language is taken at once, wherever words are", async () => {
  await grace.box().fill("a draft");
  await grace.open("Lobby");
  const robot = await Robot.join(server, "radia");
  const fallSilent = robot.keepTyping();
  await grace.text("radia is typing…").waitFor();
  const opened = await settings(grace, "Looks");
  await opened.getByRole("combobox", { name: "Language" }).selectOption("de");
  await dialog(grace, "Einstellungen").getByRole("combobox", { name: "Sprache" }).waitFor();
  await grace.text("radia schreibt…").waitFor();
  fallSilent();
  robot.leave();
  await eventually(async () => assert.equal(await grace.page.locator("#people-list [data-self]").getAttribute("data-self"), "du"));
  await dialog(grace, "Einstellungen").getByRole("combobox", { name: "Sprache" }).selectOption("");
  await dialog(grace, "Settings").waitFor();
});

test("in another language an open search, a reply and what went wrong say so too", async () => {
  await ada.say("the word to find");
  await ada.sees("the word to find");
  await ada.act("the word to find", "Reply");
  await ada.button("Search").last().click();
  await ada.page.getByRole("searchbox", { name: "Search messages" }).fill("word to find");
  await ada.text("1 message").waitFor();
  await ada.page.evaluate(() => (location.hash = "#/room/1/m/987654"));
  await ada.alert().filter({ hasText: "not here any more" }).waitFor();
  const opened = await settings(ada, "Looks");
  await opened.getByRole("combobox", { name: "Language" }).selectOption("de");
  await dialog(ada, "Einstellungen").waitFor();
  await ada.page.keyboard.press("Escape");
  for (const words of ["Antwort an ada", "1 Nachricht"]) await ada.text(words).waitFor();
  await eventually(async () => assert.match(await ada.alert().textContent(), new RegExp(german.words["log.messageGone"])));
  const panel = ada.page.getByRole("complementary", { name: german.words["search.button"] });
  for (const name of ["search.room", "search.from"]) await panel.getByRole("combobox", { name: german.words[name] }).waitFor();
  await becomes(() => panel.getByRole("searchbox").getAttribute("placeholder"), german.words["search.title"]);
  await ada.page.evaluate(() => localStorage.removeItem("chinwag.prefs/language"));
  await ada.page.reload();
  await ada.online();
});

test("with Enter sends off, Enter breaks the line, and a keyboard on the screen says so", async () => {
  await ada.box().focus();
  await becomes(() => ada.box().getAttribute("enterkeyhint"), "send");
  const opened = await settings(ada, "Looks");
  await opened.getByRole("switch", { name: "Enter sends" }).click();
  await opened.getByRole("switch", { name: "Enter sends", checked: false }).waitFor();
  await ada.page.keyboard.press("Escape");
  await ada.box().fill("one");
  await ada.box().press("Enter");
  await becomes(() => ada.box().inputValue(), "one\n");
  await becomes(() => ada.box().getAttribute("enterkeyhint"), "enter");
  await ada.box().fill("");
  await settings(ada, "Looks");
  await opened.getByRole("switch", { name: "Enter sends", checked: false }).click();
});

test("a wrong password is said beside its field, and the right one changes it", async () => {
  const linus = await Person.join(browser, server.url, "linus");
  const opened = await settings(linus, "You");
  await opened.getByLabel("Current password").fill("something else");
  await opened.getByLabel("New password").fill("another good one");
  await button(opened, "Change password").click();
  await opened.getByText("That is not your password.").waitFor();
  await becomes(() => opened.getByLabel("Current password").getAttribute("aria-invalid"), "true");
  await opened.getByLabel("Current password").fill(PASSWORD);
  await button(opened, "Change password").click();
  await opened.getByRole("status").filter({ hasText: "is changed" }).waitFor();
  assert.equal((await server.post("/login", { username: "linus", password: PASSWORD })).error.code, "invalid_credentials");
  assert.ok((await server.post("/login", { username: "linus", password: "another good one" })).token);
  await linus.leave();
});

test("a password is the same letters however they are composed, wherever it is typed", async () => {
  const composed = "p\u00e4ssw\u00f6rd";
  const decomposed = composed.normalize("NFD");
  const zoe = await Person.join(browser, server.url, "zoe");
  const change = async (before, after) => {
    const opened = await settings(zoe, "You");
    await opened.getByLabel("Current password").fill(before);
    await opened.getByLabel("New password").fill(after);
    await button(opened, "Change password").click();
    await opened.getByRole("status").filter({ hasText: "is changed" }).waitFor();
    await zoe.page.keyboard.press("Escape");
  };
  await change(PASSWORD, decomposed);
  await zoe.logOut();
  await zoe.fill("zoe", decomposed);
  await zoe.button("Log in").click();
  await zoe.online();
  await change(decomposed, "a passing one");
  await change("a passing one", composed);
  const opened = await settings(zoe, "You");
  await button(opened, "Delete account").click();
  await alertdialog(zoe).getByLabel("Password").fill(decomposed);
  await button(alertdialog(zoe), "Delete my account").click();
  await zoe.username().waitFor();
  assert.equal((await server.post("/login", { username: "zoe", password: composed })).error.code, "invalid_credentials");
  await zoe.leave();
});

test("the focus goes to the field of Settings that is to be corrected", async () => {
  const opened = await settings(grace, "You");
  await button(opened, "Change password").click();
  await grace.hasFocus("Current password");
  await opened.getByLabel("Current password").fill(PASSWORD);
  await opened.getByLabel("New password").fill("short");
  await button(opened, "Change password").click();
  await grace.hasFocus("New password");
});

/** Of the fields for passwords whether what is in them can be read. */
const typesOf = (within) => within.locator("[autocomplete$=-password]").evaluateAll((inputs) => inputs.map(({ type }) => type));

test("the passwords of a change are shown as long as one wants to see them", async () => {
  const opened = await settings(grace, "You");
  await opened.getByLabel("Current password").fill(PASSWORD);
  await opened.getByLabel("New password").fill("another good one");
  const show = button(opened, "Show passwords");
  for (const [pressed, type] of [["false", "password"], ["true", "text"], ["false", "password"]]) {
    await becomes(() => show.getAttribute("aria-pressed"), pressed);
    await becomes(() => typesOf(opened), [type, type]);
    await becomes(() => opened.getByLabel("New password").inputValue(), "another good one");
    await show.click();
  }
});

test("passwords that are shown are hidden again once they are sent", async () => {
  const opened = await settings(grace, "You");
  await opened.getByLabel("Current password").fill("something else");
  await opened.getByLabel("New password").fill("another good one");
  await button(opened, "Show passwords").click();
  await becomes(() => typesOf(opened), ["text", "text"]);
  await opened.getByLabel("New password").press("Enter");
  await opened.getByText("That is not your password.").waitFor();
  await becomes(() => typesOf(opened), ["password", "password"]);
  await becomes(() => button(opened, "Show passwords").getAttribute("aria-pressed"), "false");
});

test("passwords that are shown are hidden when Settings is opened again", async () => {
  const opened = await settings(grace, "You");
  await button(opened, "Show passwords").click();
  await becomes(() => typesOf(opened), ["text", "text"]);
  await grace.page.keyboard.press("Escape");
  await opened.waitFor({ state: "detached" });
  await settings(grace, "You");
  await becomes(() => typesOf(opened), ["password", "password"]);
});

test("the keyboard shows the passwords of a change, after them and before they are sent", async () => {
  const opened = await settings(grace, "You");
  await opened.getByLabel("New password").focus();
  await grace.page.keyboard.press("Tab");
  await grace.hasFocus("Show passwords");
  await grace.page.keyboard.press("Space");
  await becomes(() => typesOf(opened), ["text", "text"]);
  await grace.hasFocus("Show passwords");
  await grace.page.keyboard.press("Tab");
  await grace.hasFocus("Change password");
});

test("the password that deletes an account is shown as long as one wants to see it", async () => {
  await button(await settings(grace, "You"), "Delete account").click();
  const asked = alertdialog(grace);
  await asked.getByLabel("Password").fill(PASSWORD);
  for (const type of ["password", "text", "password"]) {
    await becomes(() => typesOf(asked), [type]);
    await button(asked, "Show password").click();
  }
});

test("the password that deletes an account is hidden again once it is sent", async () => {
  await button(await settings(grace, "You"), "Delete account").click();
  const asked = alertdialog(grace);
  await asked.getByLabel("Password").fill("something else");
  await button(asked, "Show password").click();
  await becomes(() => typesOf(asked), ["text"]);
  await button(asked, "Delete my account").click();
  await asked.getByText("That is not your password.").waitFor();
  await becomes(() => typesOf(asked), ["password"]);
});

test("a device that is ended is logged out", async () => {
  const { token } = await server.post("/login", { username: "grace", password: PASSWORD });
  const opened = await settings(grace, "Devices");
  const list = opened.getByRole("list", { name: "Devices" });
  await list.getByText("This device").waitFor();
  await becomes(() => list.getByRole("listitem").count(), 2);
  await list.getByRole("button", { name: /^End the session/ }).click();
  await button(alertdialog(grace), "End").click();
  await becomes(() => list.getByRole("listitem").count(), 1);
  assert.equal((await server.messages(token))?.length, undefined);
});

test("all other devices are logged out at once, and this one is not", async () => {
  const others = [];
  for (let n = 0; n < 2; n += 1) others.push((await server.post("/login", { username: "grace", password: PASSWORD })).token);
  const opened = await settings(grace, "Devices");
  const list = opened.getByRole("list", { name: "Devices" });
  await eventually(async () => assert.equal(await list.getByRole("listitem").count(), 3));
  await button(opened, "End all others").click();
  await button(alertdialog(grace), "End all others").click();
  await eventually(async () => assert.equal(await list.getByRole("listitem").count(), 1));
  // The button is gone, since there are no others.
  await opened.locator("[role=tabpanel]:focus").waitFor();
  await list.getByText("This device").waitFor();
  for (const token of others) assert.equal((await server.messages(token))?.length, undefined);
  await grace.page.keyboard.press("Escape");
  await grace.say("still here");
  await grace.sees("still here");
});

test("one's messages can be taken along as a file", async () => {
  await grace.say("to be taken along");
  await grace.sees("to be taken along");
  const opened = await settings(grace, "You");
  const [download] = await Promise.all([grace.page.waitForEvent("download"), button(opened, "Save as a file").click()]);
  assert.equal(download.suggestedFilename(), "chinwag-grace.jsonl");
  const lines = readFileSync(await download.path(), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.ok(lines.some(({ content }) => content === "to be taken along"));
});

test("an account that is deleted is logged out and gone, with what it wrote if so wished", async () => {
  const gone = await Person.join(browser, server.url, "gone");
  await gone.say("take this with me");
  await ada.sees("take this with me");
  const opened = await settings(gone, "You");
  await button(opened, "Delete account").click();
  const asked = alertdialog(gone);
  await asked.getByRole("checkbox", { name: "Delete everything I wrote, too" }).check();
  await asked.getByLabel("Password").fill("not the password");
  await button(asked, "Delete my account").click();
  await asked.getByText("That is not your password.").waitFor();
  await asked.getByLabel("Password").fill(PASSWORD);
  await button(asked, "Delete my account").click();
  await gone.username().waitFor();
  await ada.article("take this with me").waitFor({ state: "detached" });
  assert.ok((await server.post("/login", { username: "gone", password: PASSWORD })).error);
  await gone.leave();
});

test("what one is told of, by room too, and when it is quiet, is chosen and kept", async () => {
  const chosen = (opened) =>
    Promise.all([
      opened.getByRole("radio", { name: "Mentions" }).isChecked(),
      opened.getByRole("switch", { name: /^Show what was written/ }).getAttribute("aria-checked"),
      opened.getByRole("switch", { name: /^Sound/ }).getAttribute("aria-checked"),
      opened.getByRole("combobox", { name: "Tell me about, in Lobby" }).inputValue(),
      opened.getByLabel("From").inputValue(),
      opened.getByLabel("until").inputValue(),
    ]);
  const opened = await settings(grace, "Notifications");
  await opened.getByText("Mentions", { exact: true }).first().click();
  for (const name of [/^Show what was written/, /^Sound/, /^Quiet hours/]) await opened.getByRole("switch", { name }).click();
  await opened.getByRole("combobox", { name: "Tell me about, in Lobby" }).selectOption("nothing");
  await opened.getByLabel("From").fill("21:30");
  await eventually(async () => assert.match((await room(grace, /^Lobby/).getAttribute("title")) ?? "", /silenced/));
  for (const reloaded of [false, true]) {
    if (reloaded) {
      await grace.page.reload();
      await grace.online();
      await settings(grace, "Notifications");
    }
    await becomes(() => chosen(opened), [true, "false", "true", "nothing", "21:30", "07:00"]);
  }
  await opened.getByRole("combobox", { name: "Tell me about, in Lobby" }).selectOption("all");
  await eventually(async () => assert.doesNotMatch((await room(grace, /^Lobby/).getAttribute("title")) ?? "", /silenced/));
});

test("a new room opens, and is there for everybody", async () => {
  await newRoom(ada, "Garden");
  await ada.page.getByRole("heading", { name: "Garden", exact: true }).waitFor();
  await room(grace, /^Garden/).waitFor();
});

test("a room is made with an emoji and a topic, which are shown", async () => {
  await ada.button("New room").click();
  const opened = dialog(ada, "New room");
  for (const [name, text] of [["Name", "Attic"], ["Emoji", "🧺"], ["Topic", "What is up there"]]) await field(opened, name).fill(text);
  await button(opened, "Make the room").click();
  await ada.page.getByRole("heading", { name: "Attic", exact: true }).waitFor();
  await ada.page.locator(".room-bar").getByText("What is up there").waitFor();
  await eventually(async () => assert.match(await room(grace, /^Attic/).textContent(), /🧺/));
});

test("a name that is taken is said beside the name, and what was filled in stays", async () => {
  const opened = await newRoom(ada, "garden");
  await opened.getByText("There is a room of that name already.").waitFor();
  await becomes(() => field(opened, "Name").inputValue(), "garden");
  await ada.hasFocus("Name");
});

test("Enter in a room's topic saves it", async () => {
  const { id } = await server.ask(await ada.token(), "POST", "/rooms", { name: "Cellar", kind: "open" });
  assert.ok(id);
  await ada.open("Cellar");
  await ada.button("Room").click();
  const topic = field(dialog(ada, "Cellar"), "Topic");
  await topic.fill("Mind the steps");
  await topic.press("Enter");
  await dialog(ada, "Cellar").waitFor({ state: "detached" });
  await ada.page.locator(".room-bar").getByText("Mind the steps").waitFor();
  await room(ada, /^Lobby/).click();
});

test("a private room is there for those invited, until they are removed", async () => {
  await newRoom(ada, "Surprise", "grace");
  await room(grace, /^Surprise/).waitFor();
  await ada.page.getByRole("heading", { name: "Surprise", exact: true }).waitFor();
  await ada.button("Room").click();
  const opened = dialog(ada, "Surprise");
  await button(opened, "Remove grace").click();
  await room(grace, /^Surprise/).waitFor({ state: "detached" });
  // Once out they can be picked again.
  await button(opened, "grace").click();
  await room(grace, /^Surprise/).waitFor();
  await opened.getByRole("list", { name: "Members" }).getByText("grace").waitFor();
});

test("leaving a room asks once", async () => {
  await room(grace, /^Surprise/).click();
  await grace.button("Room").click();
  await button(dialog(grace, "Surprise"), "Leave the room").click();
  await button(alertdialog(grace), "Leave the room").click();
  await room(grace, /^Surprise/).waitFor({ state: "detached" });
  await grace.page.getByRole("heading", { name: "Lobby", exact: true }).waitFor();
});

test("a topic that is changed is there for others", async () => {
  await room(ada, /^Garden/).click();
  await room(grace, /^Garden/).click();
  await ada.button("Room").click();
  const opened = dialog(ada, "Garden");
  await field(opened, "Topic").fill("Beans and peas");
  await button(opened, "Save").click();
  await grace.text("Beans and peas").waitFor();
  await grace.button("Room").click();
  await dialog(grace, "Garden").getByText("Beans and peas").waitFor();
  await becomes(() => field(dialog(grace, "Garden"), "Topic").count(), 0);
});

test("a room of which one wants to hear nothing is silenced", async () => {
  await grace.button("Room").click();
  await dialog(grace, "Garden").getByText("Nothing", { exact: true }).click();
  await eventually(async () => assert.match((await room(grace, /^Garden/).getAttribute("title")) ?? "", /silenced/));
});

test("an archived room can be read, not written", async () => {
  await ada.button("Room").click();
  await button(dialog(ada, "Garden"), "Archive").click();
  await button(alertdialog(ada), "Archive").click();
  await becomes(() => grace.box().isDisabled(), true);
  await eventually(async () => assert.match((await room(grace, /^Garden/).getAttribute("title")) ?? "", /archived/));
  for (const person of [ada, grace]) await room(person, /^Lobby/).click();
});

test("a new message opens a conversation with the person who is picked", async () => {
  await ada.button("New message").click();
  const opened = dialog(ada, "New message");
  await field(opened, "To whom?").fill("gra");
  await becomes(() => opened.getByRole("list", { name: "People" }).getByRole("button").count(), 1);
  await field(opened, "To whom?").press("Enter");
  await ada.page.getByRole("heading", { name: "grace", exact: true }).waitFor();
  await room(ada, /^Lobby/).click();
});

test("a person's card mentions them, and opens a conversation with them", async () => {
  await button(ada.people(), "grace").click();
  await button(dialog(ada, "grace"), "Mention").click();
  await becomes(() => ada.box().inputValue(), "@grace ");
  await ada.hasFocus("Message");
  await ada.box().fill("");
  await button(ada.people(), "grace").click();
  await button(dialog(ada, "grace"), "Message").click();
  await ada.page.getByRole("heading", { name: "grace", exact: true }).waitFor();
  await room(ada, /^Lobby/).click();
});

for (const action of ["Message", "Mention"]) {
  test(`on a phone the list of people makes way for what a card leads to: ${action}`, async () => {
    await ada.page.setViewportSize({ width: 390, height: 844 });
    await ada.button("People").click();
    await button(ada.people(), "grace").click();
    await button(dialog(ada, "grace"), action).click();
    await becomes(() => ada.button("People").getAttribute("aria-expanded"), "false");
    await ada.people().waitFor({ state: "hidden" });
    await ada.box().fill("");
    await ada.page.setViewportSize({ width: 1280, height: 800 });
    await room(ada, /^Lobby/).click();
  });
}

test("a moderator bans from the card, and lifts the ban there", async () => {
  const rude = await Person.join(browser, server.url, "rude");
  await button(ada.people(), "rude").click();
  const opened = dialog(ada, "rude");
  await button(opened, "Ban").click();
  await button(alertdialog(ada), "Ban").click();
  await rude.username().waitFor();
  assert.ok((await server.post("/login", { username: "rude", password: PASSWORD })).error);
  await button(opened, "Lift the ban").click();
  await button(opened, "Ban").waitFor();
  assert.ok((await server.post("/login", { username: "rude", password: PASSWORD })).token);
  await rude.page.context().close();
});

test("a moderator lifts a ban by name, whenever it was", async () => {
  const session = { authorization: `Bearer ${await ada.page.evaluate(() => JSON.parse(localStorage.getItem("chinwag.session")).token)}` };
  const body = { method: "POST", headers: { ...session, "content-type": "application/json" }, body: '{"messages":false}' };
  assert.equal((await fetch(`${server.url}/users/rude/ban`, body)).status, 204);
  const opened = await settings(ada, "You");
  await field(opened, "Username").fill("nobody-of-that-name");
  await button(opened, "Lift the ban").click();
  await opened.getByText("This does not exist, or not any more.").waitFor();
  await field(opened, "Username").fill("rude");
  await button(opened, "Lift the ban").click();
  await opened.getByText("rude can come back.").waitFor();
  assert.ok((await server.post("/login", { username: "rude", password: PASSWORD })).token);
});

test("who is no moderator bans nobody", async () => {
  await button(grace.people(), "ada").click();
  await button(dialog(grace, "ada"), "Mention").waitFor();
  await becomes(() => button(dialog(grace, "ada"), "Ban").count(), 0);
});

test("an invitation's link lets somebody in, and it is shown who came", async () => {
  // Where anybody may register no invitation is used up.
  const byInvitation = await Server.start(["--registration", "invite", "--auth-rate", "0"]);
  const { hash } = new URL(/http\S+/.exec(byInvitation.command("invite"))[0]);
  const host = await Person.join(browser, byInvitation.url, "host", { path: `/${hash}` });
  await host.button("Invite people").first().click();
  const opened = dialog(host, "Invite people");
  await opened.getByRole("img", { name: "The link as a QR code" }).waitFor();
  const link = await opened.getByLabel("Link", { exact: true }).getAttribute("title");
  await button(opened, "Copy link").click();
  await button(opened, "Copied").waitFor();
  await host.page.keyboard.press("Escape");
  const guest = await Person.visit(browser, link, { name: "guest", path: "" });
  await guest.text("You are invited. Choose a name and a password, then create your account.").waitFor();
  await guest.signUp();
  await host.button("Invite people").first().click();
  await opened.getByText(/1 of 5 came in: guest\./).waitFor();
  for (const person of [host, guest]) await person.leave();
  await byInvitation.close();
});

test("where the device can share, the invitation's link is what it is given", async () => {
  await ada.page.addInitScript(() => {
    navigator.share = async (what) => void (window.shared = what);
  });
  await ada.page.reload();
  await ada.online();
  await ada.button("Invite people").click();
  const opened = dialog(ada, "Invite people");
  await eventually(async () => assert.match(await opened.locator(".link").getAttribute("title"), /#invite=/));
  await button(opened, "Share…").click();
  await becomes(() => ada.page.evaluate(() => window.shared?.url), await opened.locator(".link").getAttribute("title"));
});

test("opening the dialog again shows the same link, and another choice ends it", async () => {
  await ada.button("Invite people").first().click();
  const opened = dialog(ada, "Invite people");
  await opened.getByRole("img", { name: "The link as a QR code" }).waitFor();
  const link = opened.getByLabel("Link", { exact: true });
  const before = await link.getAttribute("title");
  await ada.page.keyboard.press("Escape");
  await ada.button("Invite people").first().click();
  await opened.getByRole("img", { name: "The link as a QR code" }).waitFor();
  await becomes(() => link.getAttribute("title"), before);
  await opened.getByRole("combobox", { name: "Good for" }).selectOption("1");
  await eventually(async () => assert.notEqual(await link.getAttribute("title"), before));
});

test("another end is taken, an invitation is ended, and what goes wrong is said", async () => {
  await ada.button("Invite people").first().click();
  const opened = dialog(ada, "Invite people");
  await opened.getByRole("img", { name: "The link as a QR code" }).waitFor();
  const link = () => opened.getByLabel("Link", { exact: true }).getAttribute("title");
  const before = await link();
  await ada.page.route("**/invites", (route) => route.abort());
  await opened.getByRole("combobox", { name: "Until" }).selectOption("1");
  await opened.getByRole("alert").filter({ hasText: "cannot be reached" }).waitFor();
  await becomes(link, before);
  await ada.page.unroute("**/invites");
  await opened.getByRole("combobox", { name: "Until" }).selectOption("30");
  await eventually(async () => assert.notEqual(await link(), before));
  const { invites } = await server.ask(await ada.token(), "GET", "/invites");
  const left = invites.map(({ expires_at, created_at }) => Math.round((expires_at - created_at) / 86_400_000));
  assert.ok(left.includes(30), `${left} days`);
  const { code } = await server.ask(await ada.token(), "POST", "/invites", { uses: 5, expires_in: 86_400_000 });
  assert.ok(code);
  await ada.page.keyboard.press("Escape");
  await ada.button("Invite people").first().click();
  const ends = opened.getByRole("button", { name: /^End the invitation: By you/ });
  await ends.first().click();
  await becomes(() => ends.count(), 0);
});

test("who may not invite is told so", async () => {
  await grace.button("Invite people").first().click();
  await dialog(grace, "Invite people")
    .getByText(/Anyone who opens this address|only moderators can invite/)
    .first()
    .waitFor();
});

test("Ctrl K finds a room and opens it, and gives the focus back when it finds none", async () => {
  await ada.box().focus();
  await ada.page.keyboard.press("Control+k");
  const finder = ada.page.getByRole("combobox", { name: "Find rooms, people, messages" });
  await finder.fill("surp");
  await ada.page.getByRole("option", { name: /Surprise/, selected: true }).waitFor();
  await finder.press("Enter");
  await ada.page.getByRole("heading", { name: "Surprise", exact: true }).waitFor();
  await room(ada, /^Lobby/).click();
  await ada.page.keyboard.press("Control+k");
  await finder.press("Escape");
  await ada.hasFocus("Message");
});

test("Ctrl K goes on to search what was said", async () => {
  await ada.say("the ladder is in the shed");
  await ada.page.keyboard.press("Control+k");
  const box = ada.page.getByRole("combobox", { name: "Find rooms, people, messages" });
  await box.fill("ladder");
  await ada.page.getByRole("option", { name: "Search messages for “ladder”" }).click();
  await becomes(() => ada.page.getByRole("searchbox", { name: "Search messages" }).inputValue(), "ladder");
  await ada.page.getByRole("complementary", { name: "Search" }).getByRole("link", { name: /ladder is in the shed/ }).waitFor();
  await ada.page.keyboard.press("Escape");
  await ada.page.getByRole("search").waitFor({ state: "detached" });
});

test("an emoji is chosen by arrow keys and put where one writes", async () => {
  await ada.box().fill("good ");
  await ada.button("Emoji").click();
  await dialog(ada, "Emoji").waitFor();
  await ada.page.keyboard.press("ArrowRight");
  await ada.page.keyboard.press("Enter");
  await becomes(() => ada.box().inputValue(), "good 😃");
  await ada.hasFocus("Message");
  await ada.box().fill("");
});

test("the emoji used last are offered first, and nothing else that is stored", async () => {
  await ada.page.evaluate(() => {
    for (const [emoji, when] of [["", 1], ["words", 2], ["🎉", 3], ["😃", 4], ["👍", "now"]]) localStorage.setItem(`chinwag.emoji/${emoji}`, JSON.stringify(when));
  });
  await ada.button("Emoji").click();
  const recent = dialog(ada, "Emoji").getByRole("region", { name: "Used last" });
  await becomes(() => recent.getByRole("button").allTextContents(), ["😃", "🎉", "👍"]);
});

test("the words beside a button of Settings are no column of letters on a narrow phone, in any language", async () => {
  const session = await grace.page.evaluate(() => localStorage.getItem("chinwag.session"));
  for (const [code] of LANGUAGES) {
    const ida = await Person.visit(browser, server.url, { locale: code, viewport: { width: 320, height: 720 } });
    await ida.page.evaluate((session) => localStorage.setItem("chinwag.session", session), session);
    await ida.page.reload();
    await ida.page.locator(".rooms-button").click();
    await ida.page.locator("#settings").click();
    const words = ida.page.locator(".settings .line:has(> .button) .words");
    await words.first().waitFor();
    const widths = () => words.evaluateAll((all) => all.map(({ offsetWidth }) => offsetWidth));
    await eventually(async () => assert.ok(Math.min(...(await widths())) >= 120, `${code}: ${await widths()}`));
    await ida.leave();
  }
});

for (const [colorScheme, width] of [
  ["light", 320],
  ["dark", 1280],
]) {
  test(`axe finds nothing in a dialog, and nothing scrolls sideways: ${colorScheme}, ${width} px`, async (t) => {
    const eve = await Person.join(browser, server.url, `eve${width}`, { colorScheme, viewport: { width, height: 720 } });
    const press = async (name) => {
      if (!(await eve.button(name).first().isVisible())) await eve.button("Rooms").click();
      await eve.button(name).first().click();
      await eve.page.locator("dialog[open]").waitFor();
    };
    const check = (state) =>
      t.test(state, async () => {
        await assertAccessible(eve.page, { selector: "dialog[open]" });
        const wide = await eve.page.evaluate(() => {
          const within = [document.documentElement, ...document.querySelectorAll("dialog[open], dialog[open] [role=tabpanel]")];
          return within.filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth + 1).map(({ outerHTML }) => outerHTML.slice(0, 80));
        });
        assert.deepEqual(wide, []);
      });
    await press("Settings");
    for (const name of ["You", "Notifications", "Looks", "Devices", "Help"]) {
      await tab(eve, name).click();
      await eve.page.getByRole("tabpanel", { name }).waitFor();
      await check(`Settings, ${name}`);
    }
    for (const name of ["New room", "New message", "Invite people", "Room", "Emoji"]) {
      await eve.page.keyboard.press("Escape");
      await eve.page.locator("dialog[open]").waitFor({ state: "detached" });
      // On a phone the rooms' sheet lies over the room.
      if (["Room", "Emoji"].includes(name)) await eve.page.keyboard.press("Escape");
      await press(name);
      await check(name);
    }
    await eve.leave();
  });
}
