import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Person, Robot, Server, assertRising, becomes, eventually, launch, within } from "../harness.js";

const COUNT = 5_000;
/** Of many lengths, so that a position kept by counting rows would be found out. */
const text = (n) => `old ${n}. ${"and so on ".repeat((n * 7) % 23)}`;

let server, browser, robots, ada;

before(async () => {
  server = await Server.start();
  browser = await launch();
  robots = await Promise.all(["Grace", "Linus", "constructor"].map((name) => Robot.join(server, name)));
  for (let from = 0; from < COUNT; from += 100) await robots[(from / 100) % 3].tell(100, (n) => text(from + n));
  ada = await Person.join(browser, server.url, "Ada");
  await ada.sees(`old ${COUNT - 1}.`);
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** The numbers of all old messages that were in the page at some time. */
const seen = new Set();
const note = (shown) => shown.forEach((message) => seen.add(number(message)));
const number = ({ text }) => Number(/^old (\d+)\./.exec(text)?.[1]);

/** Notes the first text in sight, having scrolled to `to` or where it is, and its place once what `act` brings about has happened. */
async function staysInPlace(person, act, until, to = null) {
  const before = await person.log().evaluate((log, to) => {
    if (to !== null) log.scrollTop = to;
    const { top } = log.getBoundingClientRect();
    const seen = [...log.querySelectorAll("article [dir=auto]")].find((text) => text.getBoundingClientRect().bottom > top);
    window.watched = seen;
    return seen.getBoundingClientRect().top;
  }, to);
  await act();
  await person.until(until);
  // What is laid out in one frame may be put in its place in the next.
  await eventually(async () => {
    const after = await person.page.evaluate(() => (window.watched.isConnected ? window.watched.getBoundingClientRect().top : Number.NaN));
    assert.ok(Math.abs(after - before) <= 1, `what was being read moved by ${after - before}px`);
  });
}

/** Resolves once the log has stood still for ten frames. */
const atRest = (person) =>
  within(
    person.log().evaluate(
      (log) =>
        new Promise((resolve) => {
          let [frames, top] = [0, log.scrollTop];
          const look = () => {
            frames = log.scrollTop === top ? frames + 1 : 0;
            top = log.scrollTop;
            if (frames === 10) resolve();
            else requestAnimationFrame(look);
          };
          look();
        }),
    ),
    "the log to stand still",
  );

test("at first the end is in sight, and only what is needed of the rest is in the page", async () => {
  await ada.until(() => {
    const log = document.querySelector("[role=log]");
    return log.scrollHeight - log.scrollTop - log.clientHeight < 20;
  });
  assert.ok((await ada.articles().count()) <= 300);
  note(await ada.shown());
});

test("nearing the top loads older messages and nothing moves, not even at the very top", async () => {
  for (let round = 0; round < 3; round += 1) {
    const first = await ada.page.evaluate(() => Number(document.querySelector("article").dataset.id));
    await ada.page.evaluate((first) => (window.first = first), first);
    const older = () => Number(document.querySelector("article").dataset.id) < window.first;
    await staysInPlace(ada, () => {}, older, 0);
  }
});

test("a screen reader hears of news, not of history and not of who types", async () => {
  await ada.page.evaluate(() => {
    window.heard = [];
    const log = document.querySelector("[role=log]");
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) {
        for (const node of addedNodes) if (log.ariaLive !== "off" && node.nodeName === "ARTICLE") window.heard.push(node.querySelector("[dir=auto]").textContent);
      }
    }).observe(log, { childList: true });
  });
  const first = await ada.page.evaluate(() => (window.first = Number(document.querySelector("article").dataset.id)));
  await ada.scroll(0);
  await ada.until((first) => Number(document.querySelector("article").dataset.id) < first, first);
  await ada.until(() => document.querySelector("[role=log]").ariaLive === "polite");
  const news = await Robot.join(server, "News");
  await ada.page.evaluate(() => document.querySelector("#jump").click());
  await ada.until(() => document.querySelector("#jump").hidden);
  news.typing();
  await ada.text("News is typing…").waitFor();
  await becomes(() => ada.text("News is typing…").evaluate((typing) => typing.closest("[aria-live], [role=log], [role=status], [role=alert]")), null);
  await ada.until(() => document.querySelector("[role=log]").ariaLive === "polite");
  await news.say("this just in");
  await ada.sees("this just in");
  await becomes(() => ada.page.evaluate(() => window.heard), ["this just in"]);
  news.leave();
});

test("new messages move nothing and are counted on the button", async () => {
  await ada.scroll(0);
  await ada.button("Jump to latest").waitFor();
  await staysInPlace(
    ada,
    () => robots[0].tell(3, (n) => `new ${n}.`),
    () => document.querySelector("#jump").textContent === "3 new messages",
  );
  await ada.button("3 new messages").waitFor();
});

test("scrolled back to the first message, every one was there, in order, and the page stays light", async () => {
  let most = 0;
  for (;;) {
    const shown = await ada.shown();
    assertRising(shown);
    most = Math.max(most, shown.length);
    note(shown);
    if (seen.has(0)) break;
    const first = shown[0].id;
    await ada.scroll(0);
    await ada.until((first) => Number(document.querySelector("article").dataset.id) < first, first);
  }
  for (let n = 0; n < COUNT; n += 1) assert.ok(seen.has(n), `old ${n} was seen`);
  assert.ok(most <= 600, `${most} articles at once`);
  await ada.text("Beginning of the conversation").waitFor();
});

test("scrolled down again from there, nothing is missing", async () => {
  let last = 0;
  while (last < 600) {
    const shown = (await ada.shown()).map(number).filter(Number.isInteger);
    for (let index = 1; index < shown.length; index += 1) assert.equal(shown[index], shown[index - 1] + 1);
    last = shown.at(-1);
    await ada.scroll(1e9);
    await ada.until((last) => Number(/\d+/.exec([...document.querySelectorAll("article [dir=auto]")].at(-1).textContent)[0]) > last, last);
  }
});

test("one press leads to the end, where new messages are followed again", async () => {
  await ada.page.getByRole("button", { name: /new messages|Jump to latest/ }).click();
  await ada.sees("new 2.");
  await robots[0].say("the latest");
  await ada.sees("the latest");
  await ada.until(() => {
    const log = document.querySelector("[role=log]");
    return log.scrollHeight - log.scrollTop - log.clientHeight < 20 && document.querySelector("#jump").hidden;
  });
});

test("without anything new the button only leads to the end", async () => {
  await ada.wheelUp(900);
  await ada.button("Jump to latest").click();
  await ada.button("Jump to latest").waitFor({ state: "hidden" });
});

test("reading at the end stays there when the window, the composer or a message grows", async () => {
  const atEnd = () => {
    const log = document.querySelector("[role=log]");
    return log.scrollHeight - log.scrollTop - log.clientHeight < 2;
  };
  await ada.page.setViewportSize({ width: 500, height: 500 });
  await ada.until(atEnd);
  await ada.box().fill("a\n".repeat(10));
  await ada.until(atEnd);
  // Replacing all of it empties the box for a moment.
  await ada.box().fill("x".repeat(4_001));
  await ada.alert().waitFor();
  await ada.until(atEnd);
  await becomes(() => ada.button("Jump to latest").count(), 0);
  await robots[1].say("line\n".repeat(40));
  await ada.sees("line\nline");
  await ada.until(atEnd);
  await ada.box().fill("");
  await ada.until(atEnd);
});

test("scrolled up, a change of width keeps the text in sight", async () => {
  await ada.wheelUp(4_000);
  await atRest(ada);
  await staysInPlace(
    ada,
    () => ada.page.setViewportSize({ width: 400, height: 500 }),
    () => document.querySelector("[role=log]").clientWidth <= 400,
  );
});

test("one's own message leads to the end", async () => {
  await ada.say("here I am");
  await ada.sees("here I am");
  await ada.until(() => document.querySelector("#jump").hidden);
  await ada.leave();
});
