// The main journey in another engine: Debian's Firefox ESR. Where there is none it is skipped.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { FIREFOX, Firefox, Visitor } from "../firefox.js";
import { PASSWORD, Robot, Server } from "../harness.js";

const journey = { skip: FIREFOX ? false : "there is no firefox-esr" };

let server, firefox, ada, bob;

if (FIREFOX) {
  before(async () => {
    server = await Server.start();
    firefox = await Firefox.launch();
    ada = await Visitor.visit(firefox, server.url);
    bob = await Robot.join(server, "Bob");
  });
}

after(async () => {
  bob?.leave();
  await firefox?.close();
  await server?.close();
});

/** Resolves once `text` is shown and stored, once. */
const sees = (text) =>
  ada.until((text) => {
    const texts = [...document.querySelectorAll("article[data-id]:not([data-state]) [dir=auto]")].map(({ textContent }) => textContent);
    return texts.filter((shown) => shown === text).length === 1;
  }, text);
const is = (state) => ada.until((state) => document.querySelector("#connection")?.textContent.startsWith(state), state);
const shows = (words) => ada.until((words) => document.body.innerText.includes(words), words);

async function say(text) {
  await ada.press("textbox", "Message");
  await ada.type(text, "Enter");
}

test("Firefox: an account is made by keyboard, and two people talk", journey, async () => {
  await ada.until(() => document.activeElement?.name === "username");
  await ada.type("Ada", "Tab", PASSWORD);
  await ada.press("button", "Create account");
  await is("Online");
  await ada.until(() => document.activeElement?.name === "message");
  await bob.say("Hello Ada");
  await sees("Hello Ada");
  await say("Hello Bob");
  await sees("Hello Bob");
  await ada.find("image", "Stored");
  await bob.hears(({ type, content }) => type === "message" && content === "Hello Bob");
  bob.typing();
  await shows("Bob is typing…");
});

test("Firefox: a message is reacted to, replied to and edited by keyboard", journey, async () => {
  await ada.press("textbox", "Message");
  await ada.type("ArrowUp");
  await shows("Editing your message");
  await ada.type(" all", "Enter");
  await sees("Hello Bob all");
  await bob.hears(({ type, content }) => type === "edit" && content === "Hello Bob all");
  await ada.evaluate(() => document.querySelector("#log").focus());
  await ada.type("ArrowUp", "ArrowUp", "Enter");
  await ada.until(() => document.activeElement?.closest("[role=toolbar]") !== null);
  await ada.press("button", "Reply");
  await shows("Replying to Bob");
  await ada.type("Well", "Enter");
  await sees("Well");
  await bob.hears(({ type, reply_to: quoted }) => type === "message" && quoted?.username === "Bob");
  const { message } = await bob.hears(({ type }) => type === "edit");
  bob.react(message, "👍");
  await ada.find("button", "👍 1, Bob");
  await ada.press("button", "👍 1, Bob");
  await ada.find("button", "👍 2, you and Bob");
});

test("Firefox: a picture is made smaller and sent with its description", journey, async () => {
  await ada.evaluate(async () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 2_000, height: 1_000 });
    canvas.getContext("2d").fillRect(0, 0, 500, 500);
    const blob = await new Promise((done) => canvas.toBlob(done));
    const transfer = new DataTransfer();
    transfer.items.add(new File([blob], "a.png", { type: "image/png" }));
    document.querySelector("textarea").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  });
  await shows("Ready to send");
  await ada.press("textbox", "Describe the picture");
  await ada.type("black", "Enter", "look", "Enter");
  await sees("look");
  await ada.find("image", "black");
  const { image } = await bob.hears(({ type, content }) => type === "message" && content === "look");
  assert.deepEqual([image.width, image.height], [1_600, 800]);
});

test("Firefox: a room is made, has an address, and back and forward lead there", journey, async () => {
  await ada.press("button", "New room");
  await ada.press("textbox", "Name");
  await ada.type("Attic");
  await ada.press("button", "Make the room");
  await ada.until(() => location.hash === "#/room/2");
  await say("up here");
  await sees("up here");
  await ada.go(-1);
  await ada.until(() => location.hash === "#/room/1");
  await sees("look");
  await ada.go(1);
  await sees("up here");
});

test("Firefox: what is found is a link into the conversation", journey, async () => {
  await ada.press("button", "Search");
  await ada.until(() => document.activeElement?.type === "search");
  await ada.type("Well");
  await ada.until(() => document.querySelectorAll(".panel.search a").length === 1);
  await ada.type("ArrowDown", "Enter");
  await ada.until(() => /^#\/room\/1\/m\/\d+$/.test(location.hash));
  await sees("Well");
});

test("Firefox: what is written without a server goes by itself once it is back, also after a reload", journey, async () => {
  await server.kill();
  await is("Reconnecting");
  await say("from the tunnel");
  await shows("Waiting for the connection");
  await ada.evaluate(() => {
    const box = document.querySelector("textarea");
    box.value = "not yet said";
    box.dispatchEvent(new Event("input", { bubbles: true }));
  });
  await server.start();
  await is("Online");
  await sees("from the tunnel");
  await ada.reload();
  await is("Online");
  await sees("from the tunnel");
  await ada.until(() => document.querySelector("textarea").value === "not yet said");
});

test("Firefox: logging out leaves nothing, and nothing was complained of", journey, async () => {
  await ada.press("button", "Settings");
  await ada.press("button", "Log out");
  await ada.find("button", "Log in");
  const stored = await ada.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
  for (const text of ["token", "not yet said"]) assert.ok(!stored.includes(text), stored);
  assert.deepEqual(ada.complaints, []);
});
