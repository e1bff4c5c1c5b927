// The README's screenshots: a real server, a few people at the protocol, one at the page.

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { Person, Robot, Server, launch } from "./harness.js";

const DIRECTORY = join(import.meta.dirname, "../../docs/screenshots");

const TALK = [
  ["Grace", "Morning! The new board arrived, the one with two cores."],
  ["Grace", "It draws less than the lamp beside it."],
  ["Linus", "How many people does it carry?"],
  ["Grace", "Everyone I could find. I ran out of people before it ran out of anything."],
  ["Hedy", "Does it keep what we said when the power goes?"],
  ["Grace", "I pulled the plug twice while Linus was talking.\nBoth times every word was there when it came back."],
  ["Linus", "So that is what that was."],
  ["Hedy", "Wrote it all down here: https://example.org/notes/two-cores"],
  ["Radia", "Reading it now. On the train, so I come and go."],
  ["Radia", "Came back after the tunnel, nothing missing."],
];

const LAST = ["Ada", "Then let us move in. I will bring the biscuits."];

mkdirSync(DIRECTORY, { recursive: true });
const server = await Server.start();
const browser = await launch();
try {
  const robots = new Map();
  for (const name of ["Grace", "Linus", "Hedy", "Radia"]) robots.set(name, await Robot.join(server, name));
  for (const [name, text] of TALK) await robots.get(name).say(text);

  const ada = await Person.visit(browser, server.url, { name: "Ada" });
  const shoot = async (file, { width, height, colorScheme }) => {
    await ada.page.setViewportSize({ width, height });
    await ada.page.emulateMedia({ colorScheme });
    await ada.page.screenshot({ path: join(DIRECTORY, file), animations: "disabled" });
  };
  await shoot("welcome.png", { width: 960, height: 640, colorScheme: "light" });
  await ada.signUp();
  await ada.say(LAST[1]);
  await ada.sees(LAST[1]);
  const typing = async () => {
    robots.get("Hedy").typing();
    await ada.text("Hedy is typing…").waitFor();
  };
  await typing();
  await shoot("wide-light.png", { width: 1120, height: 800, colorScheme: "light" });
  await shoot("wide-dark.png", { width: 1120, height: 800, colorScheme: "dark" });
  await shoot("narrow-light.png", { width: 375, height: 720, colorScheme: "light" });
  await shoot("narrow-dark.png", { width: 375, height: 720, colorScheme: "dark" });
  await ada.leave();
} finally {
  await browser.close();
  await server.close();
}
