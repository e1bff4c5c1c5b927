// Finding what was said: the panel beside the conversation, or on a phone in its place.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { Person, Server, becomes, eventually, launch, within } from "../harness.js";

let server, browser, ada, grace;

before(async () => {
  server = await Server.start();
  browser = await launch();
  ada = await Person.join(browser, server.url, "ada");
  grace = await Person.join(browser, server.url, "grace");
  // None of them is the beginning of another: in an article the time comes after the text, "2" and "9:30 PM".
  for (let number = 10; number < 40; number += 1) await ada.say(`apple number ${number}`);
  await ada.sees("apple number 39");
  await grace.say("an apple a day");
  await ada.sees("an apple a day");
});

after(async () => {
  await browser?.close();
  await server?.close();
});

afterEach(() => {
  for (const person of [ada, grace]) person.assertQuiet();
});

const search = (person) => person.page.getByRole("search", { name: "Search messages" });
const query = (person) => search(person).getByRole("searchbox", { name: "Search messages" });
const hits = (person) => person.page.getByRole("complementary", { name: "Search" }).getByRole("link");

async function find(person, text) {
  if ((await search(person).count()) === 0) await person.page.locator("main").getByRole("button", { name: "Search", exact: true }).click();
  await query(person).fill(text);
}

test("what is found is marked, newest first, and goes further back when asked", async () => {
  await find(ada, "APPLE");
  await becomes(() => hits(ada).count(), 20);
  await eventually(async () => assert.match(await hits(ada).first().textContent(), /grace.*an apple a day/));
  await becomes(() => hits(ada).first().locator("mark").textContent(), "apple");
  await ada.button("Look further back").click();
  await becomes(() => hits(ada).count(), 31);
  await ada.button("Look further back").waitFor({ state: "hidden" });
});

test("it is searched in what one person said, and in one room", async () => {
  await search(ada).getByRole("combobox", { name: "From" }).selectOption("grace");
  await becomes(() => hits(ada).count(), 1);
  await search(ada).getByRole("combobox", { name: "From" }).selectOption("");
  await becomes(() => hits(ada).count(), 20);
  await search(ada).getByRole("combobox", { name: "Room" }).selectOption("1");
  await becomes(() => hits(ada).count(), 20);
});

test("a result leads into the conversation, and the results stay", async () => {
  await query(ada).fill("apple number 13");
  await hits(ada)
    .filter({ hasText: /apple number 13$/ })
    .click();
  await ada.until(() => /^#\/room\/1\/m\/\d+$/.test(location.hash));
  const id = await ada.page.evaluate(() => location.hash.split("/").at(-1));
  await ada.log().locator(`article[data-id="${id}"]`).getByText("apple number 13", { exact: true }).waitFor();
  await eventually(async () => assert.ok((await hits(ada).count()) > 0));
});

test("a field that is emptied while the answer is on its way does no harm", async () => {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await ada.page.route("**/search?*", async (route) => {
    await held;
    await route.continue();
  });
  const asked = ada.page.waitForRequest("**/search?*");
  await query(ada).fill("an apple");
  await asked;
  // Its event would wait for a pause in typing, which the answer does not wait for.
  await query(ada).evaluate((input) => (input.value = ""));
  release();
  await becomes(() => within(hits(ada).count(), "the page to answer"), 1);
  await becomes(() => hits(ada).locator("mark").textContent(), "an apple");
  await query(ada).press("Enter");
  await becomes(() => hits(ada).count(), 0);
  await ada.page.unroute("**/search?*");
});

test("code is found without the marks around it", async () => {
  await grace.say("a plum:\n```js\neat(plum);\n```\nor `plum`");
  await find(ada, "plum");
  await eventually(async () => assert.match(await hits(ada).first().textContent(), /a plum:\neat\(plum\);\nor plum$/));
});

test("what is not there is said, and Escape closes the panel and gives the focus back", async () => {
  await query(ada).fill("pear");
  await ada.text("Nothing was found.").waitFor();
  await query(ada).press("Escape");
  await search(ada).waitFor({ state: "detached" });
  await ada.hasFocus("Search");
});

test("arrow keys go from the field through what is found", async () => {
  await find(grace, "apple");
  await hits(grace).first().waitFor();
  await query(grace).press("ArrowDown");
  const isFocused = (link) => link === document.activeElement;
  await becomes(() => hits(grace).first().evaluate(isFocused), true);
  await grace.page.keyboard.press("ArrowUp");
  await grace.hasFocus("Search messages");
});

test("on a phone what is found takes the conversation's place until a result is followed", async () => {
  const phone = await Person.join(browser, server.url, "phone", { viewport: { width: 390, height: 700 } });
  await find(phone, "an apple");
  await hits(phone).first().waitFor();
  await becomes(() => phone.box().isVisible(), false);
  await hits(phone).first().click();
  await phone.box().waitFor();
  await phone.sees("an apple a day");
  await phone.leave();
});
