import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { Person, Robot, Server, assertAccessible, launch, setHidden } from "../harness.js";

const PICTURE = readFileSync(new URL("../../../public/icons/icon-192.png", import.meta.url));
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

let server, browser, robots;

before(async () => {
  server = await Server.start();
  browser = await launch();
  // The first is a moderator.
  const grace = await Robot.join(server, "Grace");
  robots = [grace, ...(await Promise.all(["Linus", "constructor", "x".repeat(32)].map((name) => Robot.join(server, name))))];
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const assertNothingFound = (person, state) => assertAccessible(person.page, { tags: RULES, state });

for (const colorScheme of ["light", "dark"]) {
  for (const width of [320, 1280]) {
    test(`axe finds nothing: ${colorScheme}, ${width} px`, async (t) => {
      const name = `Ada-${colorScheme}-${width}`;
      const ada = await Person.visit(browser, server.url, { name, colorScheme, viewport: { width, height: 720 }, path: "/#invite=CODE" });
      const check = (state) => t.test(state, () => assertNothingFound(ada, state));

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
      await ada.wheelUp(1_500);
      await robots[0].say("news");
      await ada.button("1 new message").waitFor();
      const silence = robots.slice(1).map((robot) => robot.keepTyping());
      await ada.text("Several people are typing…").waitFor();
      await check("scrolled up, with news and someone typing");
      for (const fallSilent of silence) fallSilent();
      await ada.button("1 new message").click();

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
        const failed = { room: 1, content: "refused", username: key, created_at: Date.now(), after: 0, state: "failed", reason: { code: "unavailable" } };
        localStorage.setItem(`chinwag.outbox.${key}/n1`, JSON.stringify(failed));
      }, name);
      await ada.page.reload();
      await ada.article("refused").getByRole("button", { name: "Retry" }).waitFor();
      await ada.sees(tunnel);
      await check("a failed message");
      await ada.logOut();
      await ada.page.getByRole("alertdialog").waitFor();
      await check("asked whether to lose what is unsent");
      await ada.button("Log out and lose them").click();
      await ada.username().waitFor();
      await check("logged out");
      await ada.leave();
    });
  }
}

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing in what a finger opens, and in a picture that is described: ${colorScheme}`, async (t) => {
    const name = `Ida-${colorScheme}`;
    const device = { hasTouch: true, isMobile: true, viewport: { width: 320, height: 720 } };
    const ida = await Person.join(browser, server.url, name, { colorScheme, ...device });
    const check = (state) => t.test(state, () => assertNothingFound(ida, state));
    const text = `touched by ${name}`;
    await ida.box().fill(text);
    await ida.button("Send").click();
    await ida.sees(text);
    await ida.article(text).locator("[dir=auto]").evaluate((element) => {
      const { x, y } = element.getBoundingClientRect();
      element.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true, pointerType: "touch", clientX: x + 5, clientY: y + 5 }));
    });
    await ida.toolbar().waitFor();
    await check("what can be done with a message, on a sheet");
    await ida.page.keyboard.press("Escape");
    await ida.toolbar().waitFor({ state: "hidden" });

    await ida.page.route("**/images", (route) => route.abort());
    const [chooser] = await Promise.all([ida.page.waitForEvent("filechooser"), ida.button("Add picture").click()]);
    await chooser.setFiles({ name: "a.png", mimeType: "image/png", buffer: PICTURE });
    await ida.page.getByRole("group", { name: "A picture" }).getByRole("button", { name: "Retry" }).waitFor();
    await check("a picture that could not be sent");
    await ida.page.unroute("**/images");
    await ida.page.getByRole("group", { name: "A picture" }).getByRole("button", { name: "Retry" }).click();
    await ida.text("Ready to send").waitFor();
    await check("a picture that is to be described");
    await ida.leave();
  });
}

for (const [colorScheme, width] of [["light", 320], ["dark", 1280]]) {
  test(`axe finds nothing in what is done with rooms and messages: ${colorScheme}, ${width} px`, async (t) => {
    const name = `Eve-${colorScheme}-${width}`;
    const eve = await Person.join(browser, server.url, name, { colorScheme, viewport: { width, height: 720 } });
    const check = (state) => t.test(state, () => assertNothingFound(eve, state));
    const isNarrow = width < 600;
    const escape = async (gone) => {
      await eve.page.keyboard.press("Escape");
      await gone.waitFor({ state: "hidden" });
    };

    const attic = `Attic ${colorScheme} ${width}`;
    const { id } = await server.ask(robots[0].token, "POST", "/rooms", { name: attic, kind: "open", emoji: "🧺", topic: "What is up there" });
    const say = (content, more) => robots[0].say(content, { room: id, ...more });
    const asked = await say("Where is `the ladder`?\n```\nfind ladder\n```");
    robots[1].react(asked, "👍");
    await say(`Ask @${name}, or see https://example.org`, { reply_to: asked });
    await say("🪜");
    await say("line\n".repeat(40));
    await eve.page.getByRole("link", { name: `${attic}, 4 unread, 1 mention`, includeHidden: isNarrow }).waitFor({ state: "attached" });
    if (isNarrow) await eve.button("Rooms").click();
    await check("rooms with unread messages");
    await eve.open(attic);
    await eve.button("Show all").waitFor();
    await eve.button("👍 1, Linus").waitFor();
    await check("where one left off: code, a quote, a mention, a reaction, a folded text");

    await eve.say("my own");
    await eve.sees("my own");
    await eve.article("my own").hover();
    await eve.toolbar().waitFor();
    await check("what can be done with a message");
    await eve.act("my own", "Edit");
    await eve.text("Editing your message").waitFor();
    await check("editing");
    await escape(eve.text("Editing your message"));
    await eve.act("my own", "Reply");
    await eve.text(`Replying to ${name}`).waitFor();
    await check("replying");
    await escape(eve.text(`Replying to ${name}`));
    await eve.act("my own", "Delete");
    await eve.page.getByRole("alertdialog").waitFor();
    await check("asked whether to delete");
    await escape(eve.page.getByRole("alertdialog"));

    const suggestion = eve.page.getByRole("option", { name: /Grace/ });
    await eve.box().pressSequentially("@Gra");
    await suggestion.waitFor();
    await check("names to complete");
    await escape(suggestion);
    await eve.box().fill("");
    await eve.page.keyboard.press("Control+k");
    await eve.page.getByRole("combobox", { name: "Find rooms, people, messages" }).fill("Gra");
    await suggestion.waitFor();
    await check("rooms and people that are found");
    await escape(suggestion);
    await eve.button("Search").last().click();
    await eve.page.getByRole("searchbox", { name: "Search messages" }).fill("ladder");
    const found = eve.page.getByRole("link", { name: /ladder/ }).first();
    await found.waitFor();
    await check("messages that are found");
    await escape(found);

    if (isNarrow) await eve.button("People").click();
    await eve.people().getByText("Linus", { exact: true }).click();
    await eve.page.getByRole("dialog", { name: "Linus" }).waitFor();
    await check("somebody's card");
    await escape(eve.page.getByRole("dialog", { name: "Linus" }));
    await server.ask(robots[0].token, "PATCH", `/rooms/${id}`, { archived: true });
    await eve.until(() => document.querySelector("textarea").disabled);
    await check("an archived room");
    await eve.leave();
  });
}
