import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PASSWORD, Person, Robot, Server, becomes, launch } from "../harness.js";

let server, browser, ada, robot;

before(async () => {
  server = await Server.start();
  browser = await launch();
  robot = await Robot.join(server, "Bob");
  await robot.tell(80, (n) => `line ${n}.`);
  ada = await Person.visit(browser, server.url, { name: "Ada" });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const press = (key) => ada.page.keyboard.press(key);

/** Whether what has the focus shows it. */
const focusVisible = () =>
  ada.page.evaluate(() => {
    const style = getComputedStyle(document.activeElement);
    return style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 1;
  });

/** The names met by pressing Tab until one is met twice. */
async function walk() {
  const met = [];
  for (let presses = 0; presses < 60; presses += 1) {
    await press("Tab");
    const name = await ada.focused();
    if (met.includes(name)) return met;
    met.push(name);
    if (name !== "") assert.ok(await focusVisible(), `focus on ${name} is visible`);
  }
  throw new Error(`no end: ${met}`);
}

test("an account is made and a message sent without a mouse", async () => {
  await ada.hasFocus("Username");
  await ada.page.keyboard.type("Ada");
  await press("Tab");
  await ada.hasFocus("Password");
  await ada.page.keyboard.type(PASSWORD);
  await press("Tab");
  await ada.hasFocus("Show password");
  await press("Tab");
  await ada.hasFocus("Log in");
  await press("Tab");
  await ada.hasFocus("Create account");
  assert.ok(await focusVisible());
  await press("Enter");
  await ada.online();
  await ada.hasFocus("Message");
  await ada.page.keyboard.type("typed");
  await press("Shift+Enter");
  await ada.page.keyboard.type("in two lines");
  await press("Enter");
  await ada.sees("typed\nin two lines");
  await becomes(() => ada.box().inputValue(), "");
});

test("Tab reaches everything in reading order, wide and narrow, and leads out again", async () => {
  await ada.box().focus();
  const wide = await walk();
  for (const name of ["Notifications", "Settings", "Messages", "Message", "Send"]) assert.ok(wide.includes(name), `${name} in ${wide}`);
  await ada.page.setViewportSize({ width: 400, height: 700 });
  await ada.button("Rooms").waitFor();
  await ada.button("Send").focus();
  const narrow = (await walk()).filter(Boolean);
  const order = ["Rooms", "People", "Messages", "Message", "Send"];
  assert.deepEqual(narrow.filter((name) => order.includes(name)).sort(), [...order].sort());
  const from = narrow.indexOf("Rooms");
  assert.deepEqual([...narrow.slice(from), ...narrow.slice(0, from)].filter((name) => order.includes(name)), order);
});

test("where it is narrow a button opens the people, and Escape closes them and returns the focus", async () => {
  const button = ada.button("People");
  await becomes(() => button.getAttribute("aria-expanded"), "false");
  await becomes(() => ada.people().isVisible(), false);
  await button.focus();
  await press("Enter");
  await becomes(() => button.getAttribute("aria-expanded"), "true");
  await becomes(() => ada.people().getByRole("listitem").allTextContents(), ["Ada", "Bob"]);
  await ada.people().focus();
  await press("Escape");
  await becomes(() => button.getAttribute("aria-expanded"), "false");
  await ada.hasFocus("People");
  await becomes(() => ada.people().isVisible(), false);
  await ada.page.setViewportSize({ width: 1280, height: 800 });
  await becomes(() => ada.people().isVisible(), true);
  await becomes(() => button.isVisible(), false);
});

test("the log is scrolled by keys, and End leads back to the newest", async () => {
  await ada.log().focus();
  await press("PageUp");
  await ada.button("Jump to latest").waitFor();
  await press("End");
  await ada.button("Jump to latest").waitFor({ state: "hidden" });
  await press("PageUp");
  await ada.button("Jump to latest").focus();
  await press("Enter");
  await ada.button("Jump to latest").waitFor({ state: "hidden" });
  await ada.hasFocus("Messages");
});

test("Enter that ends an IME composition neither sends nor breaks the line", async () => {
  const before = await ada.articles().count();
  const input = await ada.page.context().newCDPSession(ada.page);
  await ada.box().focus();
  await input.send("Input.imeSetComposition", { text: "にほん", selectionStart: 3, selectionEnd: 3 });
  await press("Enter");
  await becomes(() => ada.articles().count(), before);
  await input.send("Input.insertText", { text: "日本" });
  await becomes(() => ada.box().inputValue(), "日本");
  // Safari's Enter after the composition, known by its key code only.
  await ada.box().evaluate((box) => box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true })));
  await becomes(() => ada.box().inputValue(), "日本");
  await press("Enter");
  await ada.sees("日本");
  await becomes(() => ada.articles().count(), before + 1);
});

test("a key held down sends once", async () => {
  await ada.box().fill("held");
  await ada.page.keyboard.down("Enter");
  await ada.box().fill("not yet");
  await ada.page.keyboard.down("Enter");
  await ada.page.keyboard.up("Enter");
  await ada.sees("held");
  await becomes(() => ada.box().inputValue(), "not yet");
  await ada.box().fill("");
});

test("a press on Send leaves the focus with the text", async () => {
  await ada.box().fill("by the button");
  await ada.button("Send").click();
  await ada.sees("by the button");
  await ada.hasFocus("Message");
});

test("with reduced motion nothing moves by itself", async () => {
  await ada.page.emulateMedia({ reducedMotion: "reduce" });
  const moving = await ada.page.evaluate(() =>
    [...document.querySelectorAll("*")].filter((element) => {
      const style = getComputedStyle(element);
      const seconds = [...style.transitionDuration.split(","), ...style.animationDuration.split(",")].map(Number.parseFloat);
      return seconds.some((duration) => duration > 0) || style.scrollBehavior === "smooth";
    }).length,
  );
  assert.equal(moving, 0);
  await ada.leave();
});
