// How the page looks and speaks, as the browser says and as is chosen.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import arabic from "../../../public/i18n/ar.js";
import german from "../../../public/i18n/de.js";
import { PASSWORD, Person, Robot, Server, assertAccessible, becomes, eventually, launch } from "../harness.js";

let server, browser, ada, robot;

before(async () => {
  server = await Server.start();
  browser = await launch();
  robot = await Robot.join(server, "Grace");
  await robot.say("words of Grace");
  ada = await Person.join(browser, server.url, "Ada");
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const root = (person) => person.page.locator("html");

async function looks(person) {
  const dialog = await person.settings();
  await dialog.getByRole("tab", { name: "Looks" }).click();
  return dialog;
}

test("a language that is chosen is taken at once, and again after a reload", async () => {
  await (await looks(ada)).getByRole("combobox", { name: "Language" }).selectOption("de");
  await ada.page.keyboard.press("Escape");
  const box = ada.page.getByRole("textbox", { name: german.words["composer.message"], exact: true });
  await box.waitFor();
  for (const loaded of [false, true]) {
    if (loaded) await ada.page.reload();
    await box.waitFor();
    await ada.page.getByRole("navigation", { name: german.words["rooms.title"] }).waitFor();
    await ada.page.getByRole("separator", { name: german.words["day.today"] }).waitFor();
    await becomes(() => root(ada).getAttribute("lang"), "de");
  }
  await ada.page.getByRole("button", { name: german.words["settings.title"] }).click();
  await ada.page.getByRole("tab", { name: german.words["settings.looks"] }).click();
  await ada.page.getByRole("combobox", { name: german.words["looks.language"] }).selectOption("");
  await ada.page.keyboard.press("Escape");
  await ada.box().waitFor();
  await becomes(() => root(ada).getAttribute("lang"), "en");
  ada.assertQuiet();
});

for (const [colorScheme, width] of [["light", 320], ["dark", 1280]]) {
  test(`from right to left nothing is out of place, and axe finds nothing: ${colorScheme}, ${width} px`, async (t) => {
    const layla = await Person.visit(browser, server.url, { colorScheme, locale: "ar-EG", viewport: { width, height: 720 } });
    const say = (key) => arabic.words[key];
    const article = (text) => layla.page.getByRole("article").filter({ hasText: text });
    const button = (key) => layla.page.getByRole("button", { name: say(key), exact: true });
    const check = (state) =>
      t.test(state, async () => {
        await assertAccessible(layla.page);
        assert.equal(await layla.page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, "it scrolls sideways");
      });
    await layla.page.getByRole("textbox", { name: say("login.username") }).fill(`Layla${width}`);
    await layla.page.getByLabel(say("login.password"), { exact: true }).fill(PASSWORD);
    await becomes(() => root(layla).evaluate(({ lang, dir }) => [lang, dir]), ["ar", "rtl"]);
    await check("the form");
    await button("login.create").click();
    const box = layla.page.getByRole("textbox", { name: say("composer.message"), exact: true });
    await box.waitFor();
    await article("words of Grace").waitFor();
    const own = `words of Layla at ${width} px`;
    await box.fill(own);
    await box.press("Enter");
    await article(own).and(layla.page.locator("[data-id]:not([data-state])")).waitFor();
    // One's own words stand on the side where a line ends.
    await eventually(async () => {
      const [left, right] = await Promise.all([own, "words of Grace"].map((text) => article(text).locator(".bubble").boundingBox()));
      assert.ok(left.x < right.x && left.x + left.width < right.x + right.width, JSON.stringify([left, right]));
    });
    await check("a conversation");
    if (width < 600) await button("rooms.title").click();
    const rooms = layla.page.getByRole("navigation", { name: say("rooms.title") });
    await eventually(async () => {
      const { x, width: wide } = await rooms.locator(".inner").boundingBox();
      assert.ok(Math.abs(x + wide - width) <= 1, `the rooms end at ${x + wide}`);
    });
    await button("settings.title").click();
    await layla.page.getByRole("dialog", { name: say("settings.title") }).waitFor();
    await check("Settings");
    await layla.leave();
  });
}

test("a text size that is chosen is taken at once, and again after a reload", async () => {
  const size = () => ada.article("words of Grace").evaluate((article) => Number.parseFloat(getComputedStyle(article).fontSize));
  const usual = await size();
  for (const [name, scale] of [["A++", 1.3], ["A−", 0.9], ["A", 1]]) {
    await (await looks(ada)).getByRole("radiogroup", { name: "Text size" }).getByText(name, { exact: true }).click();
    await ada.page.keyboard.press("Escape");
    const isSo = () => eventually(async () => assert.equal((await size()).toFixed(2), (usual * scale).toFixed(2)));
    await isSo();
    await ada.page.reload();
    await ada.article("words of Grace").waitFor();
    await isSo();
  }
});

test("times are written in the clock that is chosen, and otherwise as is usual where the language is spoken", async () => {
  const time = () => ada.article("words of Grace").locator("header time").textContent();
  await eventually(async () => assert.match(await time(), /^([1-9]|1[0-2]):\d\d\s[AP]M$/));
  for (const [name, pattern] of [["14:30", /^\d\d:\d\d$/], ["2:30 PM", /^\d{1,2}:\d\d\s[AP]M$/]]) {
    await (await looks(ada)).getByRole("radiogroup", { name: "Time" }).getByText(name, { exact: true }).click();
    await ada.page.keyboard.press("Escape");
    await eventually(async () => assert.match(await time(), pattern));
  }
});

test("each paragraph has its own direction", async () => {
  await ada.say("from the left to the right\nמימין לשמאל");
  await ada.sees("from the left to the right");
  const [first, second] = await ada.article("from the left").locator("[dir=auto]").evaluate((text) => {
    const end = text.firstChild.data.indexOf("\n");
    return [[0, end], [end + 1, text.firstChild.length]].map(([from, to]) => {
      const range = document.createRange();
      range.setStart(text.firstChild, from);
      range.setEnd(text.firstChild, to);
      const { left, right } = range.getBoundingClientRect();
      return { left, right };
    });
  });
  // The second line is shorter, and begins where the first ends.
  assert.ok(second.left > first.left + 1 && Math.abs(second.right - first.right) <= 1, JSON.stringify([first, second]));
});

test("what is written has its own direction, and the box grows with it, up to a part of the page", async () => {
  const height = () => ada.box().evaluate((box) => box.clientHeight);
  const direction = () => ada.box().evaluate((box) => getComputedStyle(box).direction);
  await ada.box().fill("שלום");
  await becomes(direction, "rtl");
  await ada.box().fill("hello");
  await becomes(direction, "ltr");
  const usual = await height();
  await ada.box().fill("a\nb\nc");
  await eventually(async () => assert.ok((await height()) > 2 * usual));
  await ada.box().fill("a\n".repeat(200));
  await eventually(async () => assert.ok((await height()) < 400));
  await ada.box().fill("");
  await becomes(height, usual);
});

test("where a scrollbar takes room one's own words end where the box does", async () => {
  const classic = await launch({ ignoreDefaultArgs: ["--hide-scrollbars"] });
  const max = await Person.join(classic, server.url, "Max");
  await max.say("to the very end");
  await max.sees("to the very end");
  for (let n = 0; n < 40; n += 1) await robot.say(`so that it scrolls ${n}`);
  await max.sees("so that it scrolls 39");
  await max.say("to the end");
  await max.sees("to the end");
  assert.ok(await max.log().evaluate((log) => log.offsetWidth - log.clientWidth > 5), "there is a scrollbar that takes room");
  const right = (locator) => locator.evaluate((element) => element.getBoundingClientRect().right);
  await eventually(async () => assert.ok(Math.abs((await right(max.article("to the end").locator(".bubble"))) - (await right(max.page.locator("form.composer")))) <= 1));
  await max.leave();
  await classic.close();
});

test("an empty box is one line high, however long the room's name", async () => {
  const height = () => ada.box().evaluate((box) => box.clientHeight);
  await ada.open("Lobby");
  await ada.box().fill("");
  const usual = await height();
  await server.ask(robot.token, "POST", "/rooms", { name: "What is to be done about the garden", kind: "open" });
  await ada.open("What is to be done about the garden");
  await ada.page.setViewportSize({ width: 320, height: 720 });
  await ada.until(() => document.querySelector("textarea").placeholder.includes("the garden"));
  await becomes(height, usual);
  await ada.page.setViewportSize({ width: 1280, height: 720 });
  await ada.open("Lobby");
});

test("the header is one row, however narrow, and whatever is said of the connection", async () => {
  const rows = () =>
    ada.page.evaluate(() => {
      const boxes = [...document.querySelectorAll(".room-bar button, .room-bar h2, .room-bar p")].map((element) => element.getBoundingClientRect());
      const shown = boxes.filter(({ width }) => width > 0);
      const { top, bottom, height } = document.querySelector(".room-bar").getBoundingClientRect();
      const [name, state] = ["h2", "#connection"].map((place) => document.querySelector(`.room-bar ${place}`).getClientRects().length);
      return { height, inside: shown.every((box) => box.top >= top && box.bottom <= bottom), lines: [name, state] };
    });
  for (const width of [320, 344, 360, 390, 412, 768]) {
    await ada.page.setViewportSize({ width, height: 720 });
    const online = await eventually(async () => {
      const found = await rows();
      assert.deepEqual([found.inside, found.lines], [true, [1, 1]], `${width} px`);
      return found;
    });
    await ada.page.context().setOffline(true);
    await ada.is(/^Offline/);
    await eventually(async () => assert.deepEqual(await rows(), online, `offline, ${width} px`));
    await ada.page.context().setOffline(false);
    await ada.online();
  }
  await ada.leave();
});
