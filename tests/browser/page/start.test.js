// What there is before the chat, also for those who never get that far.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PASSWORD, Person, Server, becomes, launch } from "../harness.js";

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
  await ada.page.getByText("Forgotten a password? Whoever runs this server").waitFor();
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

test("without JavaScript there are words", async () => {
  const eve = await Person.visit(browser, server.url, { javaScriptEnabled: false });
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
    const fay = await Person.open(context, server.url);
    await fay.page.getByText(words).waitFor();
    await context.close();
  });
}

test("there is an icon also where a browser asks for it unbidden", async () => {
  const answer = await fetch(`${server.url}/favicon.ico`);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-type"), /^image\//);
});
