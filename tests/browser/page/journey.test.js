import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { Person, Robot, Server, assertRising, becomes, eventually, holdTimers, launch, setHidden } from "../harness.js";

let server, browser, ada, bob;

before(async () => {
  server = await Server.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

afterEach(() => {
  for (const person of [ada, bob]) person?.assertQuiet();
});

test("an empty room says that it is, and begins", async () => {
  ada = await Person.join(browser, server.url, "Ada");
  await ada.text("Beginning of the conversation").waitFor();
  await ada.text("It is quiet in here.").waitFor();
  await ada.text("1 online").waitFor();
  await ada.hasFocus("Message");
});

test("two people talk: each message once, in one order, with author, time and day", async () => {
  bob = await Person.join(browser, server.url, "Bob");
  await ada.text("2 online").waitFor();
  await becomes(() => ada.people().getByRole("listitem").allTextContents(), ["Ada", "Bob"]);
  await ada.say("Hello Bob");
  await bob.sees("Hello Bob");
  await bob.say("Hello\nAda");
  for (const person of [ada, bob]) await person.sees("Hello\nAda");
  const [first, second] = await ada.shown();
  assert.deepEqual([first.author, first.text, second.author, second.text], ["Ada", "Hello Bob", "Bob", "Hello\nAda"]);
  assertRising([first, second]);
  assert.equal(new Date(first.time).toISOString(), first.time);
  // What one said has the time of one's own clock until it comes back with the server's.
  await eventually(async () => assert.deepEqual(await bob.shown(), await ada.shown()));
  await ada.log().getByRole("separator", { name: "Today" }).waitFor();
  await ada.text("It is quiet in here.").waitFor({ state: "hidden" });
  await ada.hasFocus("Message");
});

test("messages of one person stand together, with author and time still there for a screen reader", async () => {
  for (const text of ["one", "two", "three"]) await bob.say(text);
  await ada.sees("three");
  const grouped = ada.article("three");
  await becomes(() => grouped.locator("header").evaluate((header) => header.clientHeight), 1);
  await eventually(async () => assert.match(await grouped.ariaSnapshot(), /Bob/));
});

test("who types is shown to others, until the message or six seconds of silence", async () => {
  await ada.box().pressSequentially("Wait");
  await bob.text("Ada is typing…").waitFor();
  await becomes(() => ada.text("Ada is typing…").count(), 0);
  await ada.box().press("Enter");
  await bob.text("Ada is typing…").waitFor({ state: "hidden" });

  const carol = await Robot.join(server, "Carol");
  const dan = await Robot.join(server, "constructor");
  carol.typing();
  await bob.text("Carol is typing…").waitFor();
  dan.typing();
  await bob.text("Carol and constructor are typing…").waitFor();
  // Their six seconds may be almost over.
  carol.typing();
  dan.typing();
  await ada.box().pressSequentially("x");
  await bob.text("Several people are typing…").waitFor();
  await bob.page.getByText("typing…").waitFor({ state: "hidden" });
  await becomes(() => bob.log().getByText("typing").count(), 0);
  await ada.box().fill("");
  carol.leave();
  dan.leave();
  await ada.text("2 online").waitFor();
});

test("typing is told to the server at most every two seconds", async () => {
  const frames = [];
  ada.page.once("websocket", (socket) => socket.on("framesent", ({ payload }) => frames.push([Date.now(), JSON.parse(payload).type])));
  await ada.page.reload();
  await ada.online();
  const began = Date.now();
  for (let round = 0; round < 25; round += 1) await ada.box().press("a", { delay: 100 });
  const times = frames.filter(([, type]) => type === "typing").map(([time]) => time);
  const took = Date.now() - began;
  assert.ok(times.length >= 1 && times.length <= 1 + Math.ceil(took / 2_000), `${times.length} in ${took} ms`);
  await ada.box().fill("");
});

test("a hidden page counts what was not seen, and forgets once it is", async () => {
  await setHidden(bob.page, true);
  for (const text of ["psst", "hello?", "anyone?"]) await ada.say(text);
  await bob.until(() => document.title.startsWith("(3) "));
  await bob.say("my own do not count");
  await bob.sees("my own do not count");
  await bob.until(() => document.title.startsWith("(3) "));
  await setHidden(bob.page, false);
  await bob.until(() => !document.title.startsWith("("));
});

test("notifications: asked for only when the button is pressed, shown only while hidden, only of others", async () => {
  const context = await browser.newContext();
  await context.addInitScript(() => {
    window.asked = 0;
    window.shown = [];
    window.Notification = class {
      static permission = "default";
      static async requestPermission() {
        window.asked += 1;
        return (Notification.permission = window.answer ?? "granted");
      }
      constructor(title, { body }) {
        window.shown.push([title, body]);
      }
      close() {}
    };
  });
  const carol = await Person.open(context, server.url);
  carol.name = "Carol2";
  await carol.signUp();
  const button = carol.button("Notifications");
  await becomes(() => button.getAttribute("aria-pressed"), "false");
  await becomes(() => carol.page.evaluate(() => window.asked), 0);
  await carol.page.evaluate(() => (window.answer = "denied"));
  await button.click();
  await carol.alert().filter({ hasText: "blocked" }).waitFor();
  await becomes(() => button.getAttribute("aria-pressed"), "false");
  await carol.page.evaluate(() => (window.answer = "granted"));
  await button.click();
  await carol.until(() => document.querySelector("#notifications").ariaPressed === "true");
  await carol.alert().waitFor({ state: "hidden" });
  await ada.say("you see this");
  await carol.sees("you see this");
  await setHidden(carol.page, true);
  await ada.say("you hear of this");
  await carol.sees("you hear of this");
  await carol.say("and not of this");
  await carol.sees("and not of this");
  const shown = () => carol.page.evaluate(() => window.shown);
  await becomes(shown, [["Ada", "you hear of this"]]);
  await button.click();
  await carol.until(() => document.querySelector("#notifications").ariaPressed === "false");
  await button.click();
  await carol.until(() => document.querySelector("#notifications").ariaPressed === "true");
  await holdTimers(carol);
  await ada.say("too late for this");
  await carol.sees("too late for this");
  await server.post("/logout", {}, await carol.token());
  await carol.username().waitFor();
  await carol.page.evaluate(() => letGo());
  assert.deepEqual(await shown(), [["Ada", "you hear of this"]]);
  await carol.leave();
});

test("session and draft survive a reload", async () => {
  await ada.box().fill("not yet said");
  await ada.page.reload();
  await ada.online();
  await becomes(() => ada.box().inputValue(), "not yet said");
  await ada.box().press("Enter");
  await bob.sees("not yet said");
  await ada.page.reload();
  await ada.online();
  await becomes(() => ada.box().inputValue(), "");
});

test("blank is not sent, and too long is said before sending", async () => {
  await ada.sees("not yet said");
  const before = await ada.articles().count();
  await ada.say("  \n\t ");
  await ada.box().fill("🙂".repeat(4_001));
  await ada.alert().filter({ hasText: "4,000" }).waitFor();
  await ada.box().press("Enter");
  await becomes(() => ada.box().inputValue(), "🙂".repeat(4_001));
  await ada.box().fill(` ${"🙂".repeat(4_000)} `);
  await ada.alert().waitFor({ state: "hidden" });
  await ada.box().press("Enter");
  await bob.sees("🙂".repeat(4_000));
  await becomes(() => ada.articles().count(), before + 1);
});

test("log out leaves no token and nothing in the page", async () => {
  await ada.logOut();
  await ada.username().waitFor();
  await becomes(() => ada.articles().count(), 0);
  await becomes(() => ada.page.evaluate(() => localStorage.getItem("chinwag.session")), null);
  await bob.people().getByText("Ada", { exact: true }).waitFor({ state: "detached" });
  await ada.leave();
  await bob.leave();
});
