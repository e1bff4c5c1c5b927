import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Person, Robot, Server, becomes, eventually, holdTimers, launch, setHidden } from "../harness.js";

let server, browser;

before(async () => {
  server = await Server.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

async function twoTabs(name) {
  const first = await Person.join(browser, server.url, name);
  const second = await Person.open(first.page.context(), server.url);
  second.name = name;
  await second.online();
  return [first, second];
}

test("two tabs are one person, and each shows everything once", async () => {
  const [first, second] = await twoTabs("Ada");
  const robot = await Robot.join(server, "Bob");
  for (const tab of [first, second]) await tab.text("2 online").waitFor();
  await becomes(() => second.people().getByRole("listitem").allTextContents(), ["Ada", "Bob"]);
  await first.say("from the first");
  await second.say("from the second");
  await robot.say("from Bob");
  // The same words at the same time, from both.
  await Promise.all([first.say("jinx"), second.say("jinx")]);
  await robot.say("the end");
  for (const tab of [first, second]) {
    await tab.sees("the end");
    await tab.until(() => document.querySelectorAll("article[data-id]:not([data-state])").length === 6);
    const texts = (await tab.shown()).map(({ text }) => text);
    assert.deepEqual([...texts].sort(), ["from Bob", "from the first", "from the second", "jinx", "jinx", "the end"]);
  }
  // What one said has the time of one's own clock until it comes back with the server's.
  await eventually(async () => assert.deepEqual(await first.shown(), await second.shown()));
  await first.box().pressSequentially("typing in one");
  await robot.hears(({ type, username }) => type === "typing" && username === "Ada");
  await becomes(() => second.page.getByText("is typing").count(), 0);
  robot.leave();
  await first.leave();
});

test("what one tab shows is not told of by the other", async () => {
  const [first, second] = await twoTabs("Kai");
  const robot = await Robot.join(server, "Lou");
  await first.page.evaluate(() => {
    window.told = [];
    window.Notification = class {
      static permission = "default";
      static requestPermission = async () => (Notification.permission = "granted");
      constructor(_title, { body }) {
        told.push(body);
      }
      close() {}
    };
  });
  await first.button("Notifications").click();
  await first.until(() => document.querySelector("#notifications").ariaPressed === "true");
  // Timers wait from here on until they are let go: on a slow machine the other tab may need longer than it is given.
  await holdTimers(first);
  await setHidden(first.page, true);
  const id = await robot.say("shown in the other");
  for (const tab of [first, second]) await tab.sees("shown in the other");
  await first.until((id) => JSON.parse(localStorage.getItem("chinwag.seen"))?.id >= id && (letGo(), true), id);
  await setHidden(second.page, true);
  await robot.say("shown in neither");
  await first.sees("shown in neither");
  await becomes(() => first.page.evaluate(() => (letGo(), told)), ["shown in neither"]);
  robot.leave();
  await first.leave();
});

test("what two tabs write at once without a network is sent once by each, and none of it is lost", async () => {
  const tabs = await twoTabs("Gil");
  await tabs[0].page.context().setOffline(true);
  for (const tab of tabs) await tab.is(/^Offline/);
  const texts = [1, 2, 3, 4].flatMap((n) => [`first ${n}`, `second ${n}`]);
  await Promise.all(tabs.map(async (tab, at) => {
    for (const text of texts.filter((_, index) => index % 2 === at)) await tab.say(text);
  }));
  await tabs[0].page.context().setOffline(false);
  for (const tab of tabs) for (const text of texts) await tab.sees(text);
  const stored = (await server.messages(await tabs[0].token())).filter(({ username }) => username === "Gil");
  assert.deepEqual(stored.map(({ content }) => content).sort(), texts.toSorted());
  for (const word of ["first", "second"]) {
    const own = stored.map(({ content }) => content).filter((text) => text.startsWith(word));
    assert.deepEqual(own, own.toSorted());
  }
  await tabs[0].leave();
});

test("each tab has a draft of its own", async () => {
  const [first, second] = await twoTabs("Eve");
  await first.box().fill("draft one");
  await second.box().fill("draft two");
  await first.page.reload();
  await second.page.reload();
  await becomes(() => first.box().inputValue(), "draft one");
  await becomes(() => second.box().inputValue(), "draft two");
  await first.leave();
});

test("logging out in one tab ends the session in all, and logging in begins it in all", async () => {
  const [first, second] = await twoTabs("Fay");
  const token = await first.page.evaluate(() => JSON.parse(localStorage.getItem("chinwag.session")).token);
  for (const tab of [first, second]) await tab.box().fill("not for the next person here");
  await first.logOut();
  for (const tab of [first, second]) await tab.username().waitFor();
  await second.page.getByText("session ended").waitFor();
  for (const tab of [first, second]) {
    await eventually(async () => {
      const stored = await tab.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
      for (const text of [token, "not for the next person here"]) assert.ok(!stored.includes(text), stored);
    });
  }
  await eventually(async () => {
    const { status } = await fetch(`${server.url}/messages`, { headers: { Authorization: `Bearer ${token}` } });
    assert.equal(status, 401);
  });
  await first.logIn();
  await second.online();
  for (const tab of [first, second]) await becomes(() => tab.box().inputValue(), "");
  await first.leave();
});

test("a session that dies elsewhere shows the form, with words, and keeps the name and what was unsaid", async () => {
  const gus = await Person.join(browser, server.url, "Gus");
  await gus.box().fill("unsaid");
  const token = await gus.page.evaluate(() => JSON.parse(localStorage.getItem("chinwag.session")).token);
  await server.post("/logout", {}, token);
  await gus.username().waitFor();
  await gus.page.getByText("Your session has ended").waitFor();
  await becomes(() => gus.page.evaluate(() => localStorage.getItem("chinwag.session")), null);
  await gus.logIn();
  await becomes(() => gus.box().inputValue(), "unsaid");
  await gus.leave();
});

test("a session that dies takes its dialogs with it", async () => {
  const ida = await Person.join(browser, server.url, "Ida");
  await ida.settings();
  await server.post("/logout", {}, await ida.token());
  await ida.username().waitFor();
  // Settings opens anew in another language.
  await ida.page.evaluate(() => (document.documentElement.lang = "de"));
  await becomes(() => ida.page.locator("dialog").count(), 0);
  await ida.leave();
});

test("a session that died while the page was closed shows the form, with words", async () => {
  const hal = await Person.join(browser, server.url, "Hal");
  const token = await hal.page.evaluate(() => JSON.parse(localStorage.getItem("chinwag.session")).token);
  await hal.page.goto("about:blank");
  await server.post("/logout", {}, token);
  await hal.page.goto(server.url);
  await hal.page.getByText("Your session has ended").waitFor();
  await hal.leave();
});
