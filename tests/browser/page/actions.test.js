// What can be done with a message, by pointer, keyboard and touch, and what others see of it.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { Person, Server, becomes, eventually, launch } from "../harness.js";

let server, browser, ada, grace;

before(async () => {
  server = await Server.start();
  browser = await launch();
  // The first account is a moderator.
  ada = await Person.join(browser, server.url, "ada");
  grace = await Person.join(browser, server.url, "grace");
  await grace.page.evaluate(() => (navigator.clipboard.writeText = async (text) => (window.copied = text)));
});

after(async () => {
  await browser?.close();
  await server?.close();
});

afterEach(() => {
  for (const person of [ada, grace]) person.assertQuiet();
});

/** What grace's page has put into the clipboard last; reading the clipboard itself is not for a headless browser. */
const copied = () => grace.page.evaluate(() => window.copied);

const tag = (person) => person.page.evaluate(() => document.activeElement.tagName);

test("a reply quotes what it replies to, and pressing the quote leads there", async () => {
  await ada.say("yes?");
  await grace.sees("yes?");
  await grace.act("yes?", "Reply");
  await grace.hasFocus("Message");
  await grace.text("Replying to ada").waitFor();
  await grace.say("my reply");
  const [asked] = await ada.shown();
  await ada.article("my reply").getByRole("button", { name: "In reply to ada yes?" }).click();
  await ada.wasMarked(asked.id);
});

test("↑ in an empty box edits the last own message; others see it, also in quotes", async () => {
  await ada.box().press("ArrowUp");
  await becomes(() => ada.box().inputValue(), "yes?");
  await ada.say("yes indeed");
  const edited = grace.articles().filter({ hasText: "yes indeed" }).first();
  await edited.getByText("edited", { exact: true }).waitFor();
  await grace.article("my reply").getByText("yes indeed").waitFor();
  await becomes(() => ada.box().inputValue(), "");
});

test("Escape leaves an edit, and what was being written is there again", async () => {
  await ada.box().fill("half a thought");
  await ada.act("yes indeed", "Edit");
  await becomes(() => ada.box().inputValue(), "yes indeed");
  await ada.box().press("Escape");
  await becomes(() => ada.box().inputValue(), "half a thought");
  await ada.box().fill("");
});

test("reactions are toggle buttons that say whose they are", async () => {
  await grace.act("my reply", "👍");
  await ada.button("👍 1, grace").click();
  const both = grace.button("👍 2, you and ada");
  await both.waitFor();
  await becomes(() => both.getAttribute("aria-pressed"), "true");
  await both.click();
  await ada.button("👍 1, you").waitFor();
  await grace.act("my reply", "React");
  await becomes(() => grace.toolbar().getByRole("button").count(), 8);
  await grace.toolbar().getByRole("button", { name: "🎉" }).click();
  await ada.button("🎉 1, grace").waitFor();
});

test("a delete asks once, and takes the message away from everybody", async () => {
  await grace.say("never mind");
  await ada.sees("never mind");
  await grace.act("never mind", "Delete");
  await grace.page.getByRole("alertdialog", { name: "Delete this message?" }).getByRole("button", { name: "Cancel" }).click();
  await grace.sees("never mind");
  await grace.act("never mind", "Delete");
  await grace.page.getByRole("alertdialog").getByRole("button", { name: "Delete", exact: true }).click();
  for (const person of [ada, grace]) await person.article("never mind").waitFor({ state: "detached" });
});

test("the focus goes back to a message that is not deleted after all, and to the log from one that is", async () => {
  await grace.say("going");
  await grace.sees("going");
  await grace.act("going", "Delete");
  await grace.page.getByRole("alertdialog").getByRole("button", { name: "Cancel" }).press("Enter");
  await grace.page.locator("article:focus").filter({ hasText: "going" }).waitFor();
  await grace.act("going", "Delete");
  await grace.page.getByRole("alertdialog").getByRole("button", { name: "Delete", exact: true }).press("Enter");
  await grace.article("going").waitFor({ state: "detached" });
  await grace.hasFocus("Messages");
});

test("the focus stays with a reaction that is pressed, and with its message when it is taken back", async () => {
  await grace.say("to be praised");
  const reaction = (name) => grace.article("to be praised").getByRole("button", { name, exact: true });
  await ada.act("to be praised", "👍");
  await reaction("👍 1, ada").press("Enter");
  await reaction("👍 2, you and ada").waitFor();
  await grace.hasFocus("👍 2, you and ada");
  await grace.page.keyboard.press("Enter");
  await grace.hasFocus("👍 1, ada");
  await ada.article("to be praised").getByRole("button", { name: "👍 1, you", exact: true }).press("Enter");
  await reaction("👍 1, ada").waitFor({ state: "detached" });
  await grace.page.locator("article:focus").filter({ hasText: "to be praised" }).waitFor();
});

for (const first of ["👍", "React"]) {
  test(`what is pressed on one message leaves its place to the actions of another: ${first}`, async () => {
    for (const text of ["pressed on", "pointed at"]) {
      await grace.say(text + first);
      await ada.sees(text + first);
    }
    await ada.box().focus();
    await ada.act(`pressed on${first}`, first);
    await ada.article(`pointed at${first}`).hover();
    await ada.article(`pointed at${first}`).getByRole("toolbar", { name: "Message actions" }).waitFor();
    await ada.hasFocus("Message");
    // The next message may come to stand where the pointer is, and would not be pointed at without a movement.
    await ada.page.mouse.move(0, 0);
  });
}

test("a moderator deletes what others wrote", async () => {
  await grace.say("not for here");
  await ada.sees("not for here");
  await ada.act("not for here", "Delete");
  await ada.page.getByRole("alertdialog").getByRole("button", { name: "Delete", exact: true }).click();
  for (const person of [ada, grace]) await person.article("not for here").waitFor({ state: "detached" });
});

test("what is not one's own is neither edited nor deleted, but by a moderator", async () => {
  await grace.article("yes indeed").first().hover();
  await becomes(() => names(grace), ["React", "Reply", "Copy text", "Copy link"]);
  await ada.article("my reply").first().hover();
  await becomes(() => names(ada), ["React", "Reply", "Copy text", "Copy link", "Delete", "Delete and ban"]);
});

const names = async (person) => {
  await person.toolbar().waitFor();
  const names = await person.toolbar().getByRole("button").evaluateAll((buttons) => buttons.map(({ ariaLabel }) => ariaLabel));
  return names.filter((name) => /^\w/.test(name));
};

test("arrow keys choose a message, Enter opens what can be done, Escape leads back", async () => {
  await ada.log().focus();
  await ada.page.keyboard.press("ArrowUp");
  await becomes(() => tag(ada), "ARTICLE");
  const chosen = await ada.page.evaluate(() => Number(document.activeElement.dataset.id));
  await ada.page.keyboard.press("Enter");
  await ada.hasFocus("👍");
  await ada.page.keyboard.press("ArrowRight");
  await ada.hasFocus("❤️");
  await ada.page.keyboard.press("Enter");
  await ada.log().locator(`article[data-id="${chosen}"]`).getByRole("button", { name: "❤️ 1, you", pressed: true }).waitFor();
  await ada.hasFocus("❤️");
  await ada.page.keyboard.press("ArrowLeft");
  await ada.hasFocus("👍");
  await ada.page.keyboard.press("ArrowLeft");
  await ada.hasFocus("Delete and ban");
  await ada.page.keyboard.press("Escape");
  await becomes(() => tag(ada), "ARTICLE");
  await ada.page.keyboard.press("Escape");
  await ada.hasFocus("Message");
});

test("typing while the log has the focus goes into the box", async () => {
  await ada.log().focus();
  await ada.page.keyboard.type("so there");
  await becomes(() => ada.box().inputValue(), "so there");
  await ada.box().fill("");
});

test("names are completed after an @, and who is named is told", async () => {
  await ada.box().pressSequentially("look, @gr");
  await ada.page.getByRole("option", { name: /grace/ }).waitFor();
  await ada.box().press("Enter");
  await becomes(() => ada.box().inputValue(), "look, @grace ");
  await ada.box().press("Enter");
  await grace.article("look, @grace").and(grace.page.locator(".mention")).waitFor();
});

test("names that were declined by Escape do not come back with the server's answer", async () => {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await ada.page.route("**/users?*", async (route) => {
    await held;
    await route.continue();
  });
  const option = ada.page.getByRole("option", { name: /grace/ });
  const asked = ada.page.waitForRequest("**/users?*");
  await ada.box().pressSequentially("@gr");
  const request = await asked;
  await option.waitFor();
  await ada.box().press("Escape");
  await option.waitFor({ state: "detached" });
  await ada.box().evaluate((box) => {
    const panel = document.querySelector(".suggest");
    window.cameBack = false;
    new MutationObserver(() => (window.cameBack ||= !panel.hidden && box.value === "@gr")).observe(panel, { attributes: true, childList: true });
  });
  release();
  await (await request.response()).finished();
  await ada.box().pressSequentially("a");
  await option.waitFor();
  assert.equal(await ada.page.evaluate(() => window.cameBack), false);
  await ada.box().fill("");
  await ada.page.unroute("**/users?*");
});

test("code is monospaced, and a block of it is copied by a button", async () => {
  await ada.say("press `q`, or\n```js\nleave(now);\n```");
  await grace.sees("leave(now);");
  const article = grace.article("leave(now);");
  const fonts = await article.locator("code").evaluateAll((codes) => codes.map((code) => getComputedStyle(code).fontFamily));
  assert.equal(fonts.length, 2);
  for (const font of fonts) assert.match(font, /monospace/);
  await article.getByRole("button", { name: "Copy", exact: true }).click();
  await grace.text("Copied").waitFor();
  await becomes(() => copied(), "leave(now);");
});

test("nothing else is more than its letters", async () => {
  const text = "**not** _this_ # nor\n> that\n- [or](https://example.org)";
  await ada.say(text);
  await grace.sees("nor");
  await becomes(() => grace.article("nor").locator("[dir=auto]").textContent(), text);
  await becomes(() => grace.article("nor").locator("[dir=auto] > *").allTextContents(), ["https://example.org"]);
});

test("mail addresses, telephone numbers and bare www. addresses are links", async () => {
  await ada.say("write to ada.l@example.org, call +49 (0)30 1234567 or see www.example.org/a");
  await grace.sees("write to");
  const links = grace.article("write to").getByRole("link");
  await becomes(
    () => links.evaluateAll((links) => links.map((link) => [link.textContent, link.getAttribute("href")])),
    [
      ["ada.l@example.org", "mailto:ada.l@example.org"],
      ["+49 (0)30 1234567", "tel:+490301234567"],
      ["www.example.org/a", "https://www.example.org/a"],
    ],
  );
});

test("emoji alone are large, and among words they are not", async () => {
  for (const text of ["👏🏽 🥧", "👏🏽 you"]) await ada.say(text);
  await grace.sees("👏🏽 you");
  const size = (text) => grace.article(text).locator("[dir=auto]").evaluate((text) => Number.parseFloat(getComputedStyle(text).fontSize));
  await eventually(async () => assert.ok((await size("🥧")) > 2 * (await size("👏🏽 you"))));
});

test("the text and the address of a message are copied", async () => {
  await grace.act("yes indeed", "Copy text");
  await becomes(() => copied(), "yes indeed");
  await grace.act("look, @grace", "Copy link");
  await eventually(async () => assert.match(await copied(), /^http.*\/#\/room\/1\/m\/\d+$/));
});

test("a text of many lines is folded until it is wanted", async () => {
  await ada.box().fill(`${"line\n".repeat(60)}end`);
  await ada.box().press("Enter");
  const long = grace.article("line");
  const unfold = long.getByRole("button", { name: "Show all" });
  await unfold.waitFor();
  await eventually(async () => assert.ok((await long.boundingBox()).height < 700));
  await unfold.click();
  await eventually(async () => assert.ok((await long.boundingBox()).height > 1_000));
  await unfold.waitFor({ state: "detached" });
});

test("a long press opens a sheet with the message and what can be done, and its end presses nothing there", async () => {
  const hal = await Person.join(browser, server.url, "hal", { hasTouch: true, isMobile: true, viewport: { width: 390, height: 800 } });
  await hal.box().fill("touched");
  // Where the pointer is coarse, Enter breaks the line.
  await hal.box().press("Enter");
  await becomes(() => hal.box().inputValue(), "touched\n");
  await becomes(() => hal.box().getAttribute("enterkeyhint"), "enter");
  await hal.button("Send").click();
  await hal.sees("touched");
  const tools = await hal.page.context().newCDPSession(hal.page);
  const touch = (type, ...touchPoints) => tools.send("Input.dispatchTouchEvent", { type, touchPoints });
  const { x, y } = await hal.article("touched").locator("[dir=auto]").boundingBox();
  await touch("touchStart", { x: x + 5, y: y + 5 });
  await hal.toolbar().getByRole("button", { name: "Reply", exact: true }).waitFor();
  await hal.page.getByRole("dialog").getByText("touched", { exact: true }).waitFor();
  await touch("touchEnd");
  await hal.toolbar().getByRole("button", { name: "Edit", exact: true }).click();
  await becomes(() => hal.box().inputValue(), "touched");
  await hal.leave();
});

test("delete and ban ends the account, and takes away what it wrote", async () => {
  await ada.act("my reply", "Delete and ban");
  await ada.page.getByRole("alertdialog").getByRole("button", { name: "Delete and ban" }).click();
  await grace.username().waitFor();
  await grace.page.getByText("Your session has ended").waitFor();
  await ada.article("my reply").waitFor({ state: "detached" });
});
