// The budgets of the web client. The one place that looks at the clock: each is measured up to three times, and the best
// counts, since a machine shared with others has bad moments of its own.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Person, Robot, Server, Wire, launch } from "../harness.js";

const WEIGHT_BYTES = 110_000;
const REQUESTS = 20;
const LCP_MS = 1_500;
const TASK_MS = 100;
const RATE_PER_S = 200;
const SECONDS = 10;
const HISTORY = 5_000;
const SWITCH_MS = 100;
/** What has passed through a page leaves no more than this behind. */
const HEAP_BYTES = 1_000_000;
const PASSED = Number(process.env.CHINWAG_BUDGET_PASSED ?? 10_000);
/** A page on a busy machine is left far behind by more of them at once. */
const PORTION = 5_000;
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

const largestPaint = (person) =>
  person.page.evaluate(
    () =>
      new Promise((resolve) => {
        new PerformanceObserver((list) => resolve(list.getEntries().at(-1).startTime)).observe({ type: "largest-contentful-paint", buffered: true });
      }),
  );

test("the largest thing of the first visit is painted soon", async (t) => {
  await bestOfThree(t, "ms", LCP_MS, async () => {
    const eve = await Person.visit(browser, server.url);
    const time = await largestPaint(eve);
    await eve.leave();
    return time;
  });
});

test("the second visit is painted soon also on a slow line", async (t) => {
  const eve = await Person.visit(browser, server.url);
  await eve.page.evaluate(() => navigator.serviceWorker.ready);
  const tools = await eve.page.context().newCDPSession(eve.page);
  await tools.send("Network.emulateNetworkConditions", { offline: false, latency: 400, downloadThroughput: 50_000, uploadThroughput: 50_000 });
  await bestOfThree(t, "ms", LCP_MS, async () => {
    await eve.page.reload();
    return largestPaint(eve);
  });
  await eve.leave();
});

for (const places of [1, 5]) {
  test(`no long task while ${RATE_PER_S} messages a second arrive for ${SECONDS} s, rooms: ${places}`, async (t) => {
    const founder = await server.token("Founder");
    const rooms = [1];
    while (rooms.length < places) {
      rooms.push((await server.ask(founder, "POST", "/rooms", { name: `Room ${rooms.length}`, kind: "open" })).id);
    }
    await bestOfThree(t, "ms", TASK_MS, async (round) => {
      const ada = await Person.join(browser, server.url, `Ada-${places}-${round}`);
      const robots = await Promise.all([0, 1, 2, 3].map((n) => Robot.join(server, `robot-${places}-${round}-${n}`)));
      await watchTasks(ada);
      const text = (n) => `to ${places}, round ${round}, number ${n}.`;
      const sent = [];
      await new Promise((done) => {
        const timer = setInterval(() => {
          for (let n = 0; n < RATE_PER_S / 20; n += 1) {
            // The last of all goes to the room that is open.
            const room = rooms[(sent.length + 1) % places];
            sent.push(robots[n % 4].say(`${text(sent.length)} ${"words ".repeat(n * 3)}`, { room }));
          }
          if (sent.length < RATE_PER_S * SECONDS) return;
          clearInterval(timer);
          done();
        }, 50);
      });
      await Promise.all(sent);
      await ada.sees(text(sent.length - 1));
      assert.ok((await ada.articles().count()) <= 300);
      const time = await longest(ada);
      for (const robot of robots) robot.leave();
      await ada.leave();
      return time;
    });
  });
}

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

test("another room is shown at once", async (t) => {
  const robot = await Robot.join(server, "Hedy");
  const names = ["Kitchen", "Cellar"];
  for (const name of names) {
    const { id } = await server.ask(robot.token, "POST", "/rooms", { name, kind: "open" });
    await Promise.all(Array.from({ length: 100 }, (_, n) => robot.say(`${name} ${n}. ${"and so on ".repeat(n % 23)}`, { room: id })));
  }
  const eve = await Person.join(browser, server.url, "Eve");
  for (const name of names) {
    await eve.open(name);
    await eve.article(`${name} 99.`).waitFor();
  }
  await bestOfThree(t, "ms", SWITCH_MS, async (round) => {
    const name = names[round % 2];
    return eve.link(name).evaluate(
      (link, text) =>
        new Promise((resolve) => {
          const began = performance.now();
          link.click();
          const look = () => {
            const isThere = [...document.querySelectorAll("article [dir=auto]")].some(({ textContent }) => textContent.startsWith(text));
            requestAnimationFrame(isThere ? () => resolve(performance.now() - began) : look);
          };
          look();
        }),
      `${name} 99.`,
    );
  });
  robot.leave();
  await eve.leave();
});

test(`${PASSED} messages that have passed leave nothing behind`, async (t) => {
  const robot = await Robot.join(server, "Radia");
  const fay = await Person.join(browser, server.url, "Fay");
  const tools = await fay.page.context().newCDPSession(fay.page);
  const heap = async () => {
    await tools.send("HeapProfiler.collectGarbage");
    return (await tools.send("Runtime.getHeapUsage")).usedSize;
  };
  const pass = async (count, name) => {
    await robot.tell(count, (n) => `${name} ${n}. ${"and so on ".repeat(n % 23)}`);
    await fay.sees(`${name} ${count - 1}.`);
  };
  await pass(1_000, "first");
  const before = await heap();
  for (let passed = 0; passed < PASSED; passed += PORTION) await pass(PORTION, `after ${passed} others, then`);
  const grown = (await heap()) - before;
  t.diagnostic(`${before} bytes before, ${grown} more after`);
  assert.ok(grown < HEAP_BYTES, `${grown} bytes more`);
  robot.leave();
  await fay.leave();
});
