import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PASSWORD, Person, Server, becomes, eventually, launch } from "../harness.js";

let server, browser, ada;

before(async () => {
  server = await Server.start();
  browser = await launch();
  // Where nobody has an account yet, Enter creates one.
  await server.token("Taken");
  ada = await Person.visit(browser, server.url, { name: "Ada" });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** Exactly one alert, in words, tied to `fields`. */
async function isTold(person, words, fields) {
  const alert = person.alert();
  await alert.filter({ hasText: words }).waitFor();
  await becomes(() => alert.count(), 1);
  await eventually(async () => {
    const id = await alert.getAttribute("id");
    for (const [name, field] of [["username", person.username()], ["password", person.password()]]) {
      const invalid = (await field.getAttribute("aria-invalid")) === "true";
      assert.equal(invalid, fields.includes(name), `${name} invalid`);
      if (invalid) assert.ok((await field.getAttribute("aria-describedby"))?.split(" ").includes(id));
    }
  });
  assert.doesNotMatch(await alert.textContent(), /[a-z]_[a-z]/);
  person.assertQuiet();
}

/** The server answers `status`, as it would under a fault a test cannot bring about. */
const answer = (person, path, status, body, headers = {}) =>
  person.page.route(`**${path}`, (route) => route.fulfill({ status, headers, contentType: "application/json", body }), { times: 1 });

const refusal = (code) => JSON.stringify({ error: { code, message: code } });

test("fields say what they are for, and one heading names the page", async () => {
  await becomes(() => ada.username().getAttribute("autocomplete"), "username");
  await becomes(() => ada.password().getAttribute("autocomplete"), "current-password");
  await becomes(() => ada.page.locator("h1").count(), 1);
  await becomes(() => ada.page.locator("main").count(), 1);
  await becomes(() => ada.page.locator("html").getAttribute("lang"), "en");
});

test("nothing entered", async () => {
  await ada.button("Log in").click();
  await isTold(ada, "Enter your name", ["username"]);
  await ada.username().fill("Ada");
  await ada.username().press("Enter");
  await isTold(ada, "Enter your password", ["password"]);
});

test("what a name and a password must be", async () => {
  for (const name of [".dot", "two words", "ünïcode", "x".repeat(33)]) {
    await ada.fill(name);
    await ada.button("Create account").click();
    await isTold(ada, "1 to 32", ["username"]);
    await becomes(() => ada.username().inputValue(), name);
  }
  await ada.fill("Ada", "short");
  await ada.button("Create account").click();
  await isTold(ada, "8 to 256", ["password"]);
});

test("a name that is taken, whatever its case", async () => {
  await ada.fill("tAKEN");
  await ada.button("Create account").click();
  await isTold(ada, "already", ["username"]);
});

test("a wrong name and a wrong password are told alike", async () => {
  const told = [];
  for (const [name, password] of [["Taken", "wrong password"], ["Nobody", PASSWORD]]) {
    await ada.fill(name, password);
    await ada.password().press("Enter");
    await isTold(ada, "do not belong together", ["username", "password"]);
    told.push(await ada.alert().textContent());
    await becomes(() => ada.username().inputValue(), name);
  }
  assert.equal(told[0], told[1]);
});

test("what the server refuses is told in words", async () => {
  await ada.fill("Ada");
  for (const [code, status, words, fields] of [
    ["registration_closed", 403, "no new accounts", []],
    ["invalid_invite", 403, "invitation", []],
    ["invalid_username", 422, "1 to 32", ["username"]],
    ["invalid_password", 422, "8 to 256", ["password"]],
    ["unavailable", 503, "right now", []],
  ]) {
    await answer(ada, "/register", status, refusal(code));
    await ada.button("Create account").click();
    await isTold(ada, words, fields);
  }
});

test("how many seconds to wait", async () => {
  await answer(ada, "/login", 429, refusal("rate_limited"), { "Retry-After": "17" });
  await ada.button("Log in").click();
  await isTold(ada, "17 seconds", []);
});

test("a network's own page in place of an answer is no answer", async () => {
  for (const [status, body] of [[200, "<!doctype html><h1>Welcome to the Grand Hotel"], [401, "<h1>Sign in"], [200, "{}"], [502, ""]]) {
    await answer(ada, "/login", status, body);
    await ada.button("Log in").click();
    await isTold(ada, "cannot be reached", []);
  }
});

test("what wants one to sign in before the server is told, and where", async () => {
  await ada.fill("Ada");
  await answer(ada, "/login", 302, "", { Location: "http://elsewhere.example/sign-in" });
  await ada.button("Log in").click();
  await isTold(ada, `sign in first. Open ${server.url}/healthz`, []);
});

test("a second press while busy sends nothing", async () => {
  let asked = 0;
  let let_go;
  const held = new Promise((resolve) => (let_go = resolve));
  await ada.page.route("**/login", async (route) => {
    asked += 1;
    await held;
    await route.fulfill({ status: 401, contentType: "application/json", body: refusal("invalid_credentials") });
  });
  await ada.button("Log in").click();
  await ada.button("Log in").click();
  await ada.button("Create account").click();
  await ada.password().press("Enter");
  let_go();
  await isTold(ada, "do not belong together", ["username", "password"]);
  assert.equal(asked, 1);
  await ada.page.unroute("**/login");
});

test("a server that is not there", async () => {
  await server.kill();
  await ada.button("Log in").click();
  await isTold(ada, "cannot be reached", []);
  await server.start();
});

test("the alert goes with the next try, and creating an account logs in", async () => {
  await ada.fill("Ada");
  await ada.button("Create account").click();
  await ada.box().waitFor();
  await ada.online();
  await becomes(() => ada.alert().count(), 0);
  await ada.hasFocus("Message");
  await ada.logOut();
  await ada.fill("ADA");
  await ada.password().press("Enter");
  await ada.box().waitFor();
  await ada.leave();
});

test("an invitation in the address, and the full stop behind it, is taken over, out of the address, and sent", async () => {
  const guest = await Person.visit(browser, server.url, { name: "Guest", path: "/#invite=OPEN-SESAME." });
  await guest.page.getByText("You are invited").waitFor();
  await becomes(() => new URL(guest.page.url()).hash, "");
  await guest.page.reload();
  await guest.page.getByText("You are invited").waitFor();
  const sent = guest.page.waitForRequest("**/register");
  await guest.signUp();
  assert.equal((await sent).postDataJSON().invite, "OPEN-SESAME");
  await guest.leave();
});

test("where nobody has an account yet, Enter creates the first", async () => {
  const empty = await Server.start();
  const first = await Person.visit(browser, empty.url, { name: "First" });
  await first.page.getByText("Nobody is here yet").waitFor();
  await becomes(() => first.password().getAttribute("autocomplete"), "new-password");
  await first.fill();
  await first.password().press("Enter");
  await first.box().waitFor();
  await first.leave();
  await empty.close();
});

test("where registration is by invitation, the link of `chinwag invite` lets one person in", async () => {
  const invited = await Server.start(["--registration", "invite", "--auth-rate", "0"]);
  const guest = await Person.visit(browser, invited.url, { name: "Guest" });
  await guest.fill();
  await guest.button("Create account").click();
  await isTold(guest, "invitation", []);
  const { hash } = new URL(/http\S+/.exec(invited.command("invite"))[0]);
  // The link may be opened in a page that is open already.
  await guest.page.goto(`${invited.url}/${hash}`);
  await guest.page.getByText("You are invited").waitFor();
  await guest.signUp();
  await guest.leave();
  const late = await Person.visit(browser, invited.url, { name: "Late", path: `/${hash}` });
  await late.fill();
  await late.button("Create account").click();
  await isTold(late, "used up", []);
  await late.leave();
  await invited.close();
});

test("the answer of a closed server names the invitation", async () => {
  await server.kill();
  const closed = await Server.start(["--registration", "closed", "--auth-rate", "0"]);
  const guest = await Person.visit(browser, closed.url, { name: "Guest" });
  await guest.fill();
  await guest.button("Create account").click();
  await isTold(guest, "invitation", []);
  await guest.leave();
  await closed.close();
});
