// The budgets of the web client. The one place that looks at the clock: each is measured up to three times, and the best
// counts, since a machine shared with others has bad moments of its own.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Person, Robot, Server, Wire, launch } from "../harness.js";

const WEIGHT_BYTES = 60_000;
const REQUESTS = 15;
const LCP_MS = 1_500;
const TASK_MS = 200;
const RATE_PER_S = 200;
const SECONDS = 10;
const HISTORY = 5_000;
/** How many times the budget a machine may take that is shared with others, with a debug build as the server. */
const SLACK = Number(process.env.CHINWAG_BUDGET_SLACK ?? 1);

let server, browser;

before(async () => {
  server = await Server.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

async function bestOfThree(t, unit, most, measure) {
  const measured = [];
  do measured.push(await measure(measured.length));
  while (measured.length < 3 && measured.at(-1) > most * SLACK);
  t.diagnostic(`measured ${measured.map(Math.round).join(", ")} ${unit}; at most ${most}`);
  assert.ok(Math.min(...measured) <= most * SLACK, `${measured} ${unit}`);
}

/** Records tasks over 50 ms from now on. */
const watchTasks = (person) =>
  person.page.evaluate(() => {
    window.tasks = [0];
    new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask" });
  });

const longest = (person) => person.page.evaluate(() => Math.max(...window.tasks));

test("the first visit is light: bytes and requests on the wire, those of the service worker too", async (t) => {
  const wire = await Wire.to(server.port);
  const eve = await Person.visit(browser, wire.url);
  await eve.page.evaluate(() => navigator.serviceWorker.ready);
  t.diagnostic(`${wire.received} bytes in ${wire.requests} requests`);
  assert.ok(wire.received < WEIGHT_BYTES, `${wire.received} bytes`);
  assert.ok(wire.requests <= REQUESTS, `${wire.requests} requests`);
  await eve.leave();
  wire.close();
});

test("the largest thing of the first visit is painted soon", async (t) => {
  await bestOfThree(t, "ms", LCP_MS, async () => {
    const eve = await Person.visit(browser, server.url);
    const time = await eve.page.evaluate(
      () =>
        new Promise((resolve) => {
          new PerformanceObserver((list) => resolve(list.getEntries().at(-1).startTime)).observe({ type: "largest-contentful-paint", buffered: true });
        }),
    );
    await eve.leave();
    return time;
  });
});

test(`no long task while ${RATE_PER_S} messages a second arrive for ${SECONDS} s`, async (t) => {
  await bestOfThree(t, "ms", TASK_MS, async (round) => {
    const ada = await Person.join(browser, server.url, `Ada${round}`);
    const robots = await Promise.all([0, 1, 2, 3].map((n) => Robot.join(server, `robot-${round}-${n}`)));
    await watchTasks(ada);
    const sent = [];
    await new Promise((done) => {
      const timer = setInterval(() => {
        for (let n = 0; n < RATE_PER_S / 20; n += 1) sent.push(robots[n % 4].say(`round ${round}, number ${sent.length}. ${"words ".repeat(n * 3)}`));
        if (sent.length < RATE_PER_S * SECONDS) return;
        clearInterval(timer);
        done();
      }, 50);
    });
    await Promise.all(sent);
    await ada.sees(`round ${round}, number ${sent.length - 1}.`);
    assert.ok((await ada.articles().count()) <= 300);
    const time = await longest(ada);
    for (const robot of robots) robot.leave();
    await ada.leave();
    return time;
  });
});

test(`no long task while ${HISTORY} messages are scrolled back`, async (t) => {
  const robot = await Robot.join(server, "Grace");
  await robot.tell(HISTORY, (n) => `old ${n}. ${"and so on ".repeat((n * 7) % 23)}`);
  await bestOfThree(t, "ms", TASK_MS, async (round) => {
    const bob = await Person.join(browser, server.url, `Bob${round}`);
    await bob.sees(`old ${HISTORY - 1}.`);
    await watchTasks(bob);
    await bob.page.evaluate(
      () =>
        new Promise((resolve) => {
          const log = document.querySelector("[role=log]");
          const onwards = () => {
            log.scrollTop -= 1_500;
            const texts = [...document.querySelectorAll("article [dir=auto]")];
            if (texts.some(({ textContent }) => textContent.startsWith("old 0."))) resolve();
            else requestAnimationFrame(onwards);
          };
          onwards();
        }),
    );
    const time = await longest(bob);
    await bob.leave();
    return time;
  });
});
