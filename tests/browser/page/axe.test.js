import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { Person, Robot, Server, launch, setHidden } from "../harness.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

let server, browser, robots;

before(async () => {
  server = await Server.start();
  browser = await launch();
  robots = await Promise.all(["Grace", "Linus", "constructor", "x".repeat(32)].map((name) => Robot.join(server, name)));
});

after(async () => {
  await browser?.close();
  await server?.close();
});

async function assertAccessible(person, state) {
  // Evaluated, not added as a script: the page's own policy would forbid that.
  await person.page.evaluate(AXE);
  const { violations } = await person.page.evaluate((values) => window.axe.run(document, { runOnly: { type: "tag", values } }), RULES);
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`).join("\n")}`);
  assert.deepEqual(found, [], state);
}

for (const colorScheme of ["light", "dark"]) {
  for (const width of [320, 1280]) {
    test(`axe finds nothing: ${colorScheme}, ${width} px`, async (t) => {
      const name = `Ada-${colorScheme}-${width}`;
      const ada = await Person.visit(browser, server.url, { name, colorScheme, viewport: { width, height: 720 }, path: "/#invite=CODE" });
      const check = (state) => t.test(state, () => assertAccessible(ada, state));

      await check("the form, with an invitation");
      await ada.button("Create account").click();
      await ada.alert().waitFor();
      await check("an error at the name");
      await ada.fill(name, "wrong password");
      await ada.button("Log in").click();
      await ada.alert().filter({ hasText: "belong" }).waitFor();
      await check("an error at both fields");
      await ada.page.route("**/login", (route) => route.abort());
      await ada.button("Log in").click();
      await ada.alert().filter({ hasText: "reached" }).waitFor();
      await check("no server");
      await ada.page.unroute("**/login");

      await ada.page.route("**/messages?*", (route) => route.fulfill({ json: { messages: [], has_more: false } }));
      await ada.signUp();
      await ada.text("It is quiet in here.").waitFor();
      await check("an empty room");
      await ada.page.unroute("**/messages?*");

      for (const robot of robots) await robot.tell(12, (n) => `${n} https://example.org/${n} ${"and so on ".repeat(n * 2)}`);
      await ada.say(`said by ${name}`);
      await ada.sees(`said by ${name}`);
      await check("a conversation");
      for (const robot of robots) robot.typing();
      await ada.text("Several people are typing…").waitFor();
      await ada.log().hover();
      await ada.page.mouse.wheel(0, -1_500);
      await ada.button("Jump to latest").waitFor();
      await robots[0].say("news");
      await ada.button("1 new message").waitFor();
      await check("scrolled up, with news and someone typing");
      await ada.page.getByRole("button", { name: "new message" }).click();

      if (width < 600) {
        await ada.button("People").click();
        await check("the people opened");
        await ada.page.keyboard.press("Escape");
      }
      await ada.box().fill("x".repeat(4_001));
      await ada.alert().waitFor();
      await check("a message too long");
      await ada.box().fill("");
      await ada.page.context().setOffline(true);
      await ada.is(/^Offline/);
      const tunnel = `from the tunnel of ${name}`;
      await ada.say(tunnel);
      await ada.article(tunnel).waitFor();
      await check("offline, with a pending message");
      await ada.page.context().setOffline(false);
      await ada.sees(tunnel);
      await setHidden(ada.page, true);
      await ada.page.evaluate((key) => {
        const failed = { nonce: "n1", content: "refused", username: key, created_at: Date.now(), after: 0, state: "failed", reason: { code: "unavailable" } };
        sessionStorage.setItem(`chinwag.outbox.${key}`, JSON.stringify([failed]));
      }, name);
      await ada.page.reload();
      await ada.article("refused").getByRole("button", { name: "Retry" }).waitFor();
      await ada.sees(tunnel);
      await check("a failed message");
      await ada.button("Log out").click();
      await ada.username().waitFor();
      await check("logged out");
      await ada.leave();
    });
  }
}
