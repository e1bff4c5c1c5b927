// What there is before the chat, also for those who never get that far.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { LANGUAGES } from "../../../public/i18n/index.js";
import { PASSWORD, Person, Server, becomes, eventually, launch } from "../harness.js";

let server, browser;

before(async () => {
  server = await Server.start(["--name", "The Lindens", "--auth-rate", "0"]);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

test("it is said whose server it is, and whom to ask for a forgotten password", async () => {
  const ada = await Person.visit(browser, server.url, { name: "Ada" });
  await ada.heading("The Lindens").waitFor();
  await ada.until(() => document.title === "The Lindens");
  await ada.page.getByText("Forgotten a password? The person who runs this server").waitFor();
  await ada.signUp();
  await ada.rooms().getByText("The Lindens", { exact: true }).waitFor();
  await ada.until(() => document.title === "Lobby · The Lindens");
  await ada.leave();
});

test("the password is shown as long as one wants to see it", async () => {
  const bob = await Person.visit(browser, server.url, { name: "Bob" });
  await bob.fill();
  const show = bob.button("Show password");
  for (const [pressed, type] of [["false", "password"], ["true", "text"], ["false", "password"]]) {
    await becomes(() => show.getAttribute("aria-pressed"), pressed);
    await becomes(() => bob.password().getAttribute("type"), type);
    await becomes(() => bob.password().inputValue(), PASSWORD);
    await show.click();
  }
  await bob.leave();
});

test("a password that is shown is hidden again once the form is sent", async () => {
  const cleo = await Person.visit(browser, server.url, { name: "Cleo" });
  await cleo.fill();
  await cleo.button("Show password").click();
  await becomes(() => cleo.password().getAttribute("type"), "text");
  await cleo.button("Log in").click();
  await cleo.alert().filter({ hasText: "do not belong together" }).waitFor();
  await becomes(() => cleo.password().getAttribute("type"), "password");
  await becomes(() => cleo.button("Show password").getAttribute("aria-pressed"), "false");
  await cleo.leave();
});

test("nothing corrects a password that is shown, nor reads it to check its spelling", async () => {
  const dora = await Person.visit(browser, server.url, { name: "Dora" });
  await becomes(() => dora.password().evaluate(({ spellcheck, autocapitalize }) => [spellcheck, autocapitalize]), [false, "none"]);
  await becomes(() => dora.password().getAttribute("autocorrect"), "off");
  await dora.leave();
});

test("the button that shows the password leaves it its place, in every language", async () => {
  for (const [code] of LANGUAGES) {
    const ida = await Person.visit(browser, server.url, { locale: code, viewport: { width: 320, height: 720 } });
    await becomes(() => ida.page.locator("html").getAttribute("lang"), code);
    await eventually(async () => {
      const { room, button, box } = await ida.page.locator(".reveals").evaluate((element) => {
        const [input, button] = element.children;
        const { width, height } = button.getBoundingClientRect();
        const isInside = button.scrollWidth <= button.clientWidth && button.scrollHeight <= button.clientHeight;
        return { room: Number.parseFloat(getComputedStyle(input).paddingInlineEnd), button: width, box: isInside && height <= input.offsetHeight };
      });
      assert.ok(button + 6 <= room && box, `${code}: ${button} of ${room}`);
    });
    await ida.leave();
  }
});

test("without JavaScript there are words", async () => {
  const eve = await Person.visit(browser, server.url, { javaScriptEnabled: false, shows: "#boot" });
  await eve.page.locator("noscript p").filter({ hasText: "it needs JavaScript" }).waitFor();
  await eve.leave();
});

for (const [what, path, answer, words] of [
  ["does not come", "app.js", (route) => route.abort(), "it has not started"],
  ["is too new for the browser", "app.js", (route) => route.fulfill({ contentType: "text/javascript", body: "let it = be: that" }), "it has not started"],
  ["comes late or never", "view/welcome.js", (route) => route.abort(), "could not be loaded"],
]) {
  test(`where a script ${what} there are words`, async () => {
    const context = await browser.newContext();
    await context.route(`**/${path}`, answer);
    const fay = await Person.open(context, server.url, "#boot");
    await fay.page.getByText(words).waitFor();
    await context.close();
  });
}

/** What browsers have learned since the end of 2023, and what they lack on plain HTTP. */
function forgetWhatIsNew() {
  const news = [
    [String.prototype, "toWellFormed", "isWellFormed"],
    [URL, "canParse", "parse"],
    [AbortSignal, "timeout", "any"],
    [Object, "groupBy"],
    [Map, "groupBy"],
    [Array, "fromAsync"],
    [Promise, "withResolvers", "try"],
    [Set.prototype, "union", "intersection", "difference", "symmetricDifference", "isSubsetOf", "isSupersetOf", "isDisjointFrom"],
    [Iterator.prototype, "map", "filter", "take", "drop", "flatMap", "reduce", "toArray", "forEach", "some", "every", "find"],
    [Intl, "Segmenter", "DurationFormat"],
    [HTMLDialogElement.prototype, "requestClose", "closedBy"],
    [Element.prototype, "setHTMLUnsafe"],
    [Crypto.prototype, "randomUUID"],
    [globalThis, "requestIdleCallback", "scheduler", "navigation"],
  ];
  for (const [owner, ...names] of news) for (const name of names) delete owner[name];
  Object.defineProperty(Document.prototype, "startViewTransition", { value: undefined });
}

test("a browser of two years ago is enough", async () => {
  const context = await browser.newContext();
  await context.addInitScript(forgetWhatIsNew);
  const gil = await Person.open(context, server.url);
  gil.name = "Gil";
  await gil.signUp();
  assert.equal(await gil.page.evaluate(() => "canParse" in URL || "requestIdleCallback" in globalThis), false);
  await gil.say("see https://example.org/a, and `code`");
  await gil.sees("see https://example.org/a, and");
  await gil.page.getByRole("link", { name: "https://example.org/a" }).waitFor();
  await gil.act("see", "Edit");
  await gil.box().fill("I said so");
  await gil.box().press("Enter");
  await gil.sees("I said so");
  await gil.page.keyboard.press("Control+k");
  await gil.page.getByRole("combobox", { name: "Find rooms, people, messages" }).fill("Gil");
  await gil.page.getByRole("option", { name: /Gil/ }).waitFor();
  await gil.page.keyboard.press("Escape");
  await gil.page.reload();
  await gil.sees("I said so");
  await gil.logOut();
  await gil.username().waitFor();
  await gil.leave();
});

test("there is an icon also where a browser asks for it unbidden", async () => {
  const answer = await fetch(`${server.url}/favicon.ico`);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-type"), /^image\//);
});
