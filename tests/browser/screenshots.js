// The screenshots of docs/screenshots: a real server, a family at the protocol, one of them at the page, on a laptop and on a phone.
//
//   node screenshots.js              each state as it is in docs/screenshots, beside the picture that was drawn of it before
//   node screenshots.js DIRECTORY    each at every width, light and dark, into DIRECTORY: to be looked at

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { Person, Robot, Server, becomes, launch } from "./harness.js";

const [directory = join(import.meta.dirname, "../../docs/screenshots"), everyWidth = false] = process.argv[2] ? [process.argv[2], true] : [];
const WIDE = { width: 1440, height: 1000 };
const TABLET = { width: 900, height: 1024 };
const PHONE = { width: 390, height: 844 };
const SIZES = [{ width: 320, height: 568 }, PHONE, { width: 768, height: 1024 }, { width: 1280, height: 800 }, { width: 1920, height: 1080 }];
const QUALITY = 0.7;

const ROOMS = [
  { name: "Sunday lunch", emoji: "🍲", topic: "Who comes, who cooks, who brings the folding table", kind: "open" },
  { name: "School runs", emoji: "🎒", kind: "open" },
  { name: "Holiday 2027", emoji: "🏕️", kind: "open" },
  { name: "Grandpa’s 80th", emoji: "🎂", kind: "private", members: ["ada", "Ines"] },
  { name: "House and router", emoji: "🔧", kind: "open" },
];

mkdirSync(directory, { recursive: true });
const server = await Server.start(["--name", "The Lindens", "--message-rate", "0", "--auth-rate", "0", "--registration", "open", "--invites", "everyone"]);
const browser = await launch();
const desk = await browser.newPage();

/** `file` drawn anew as `type`, which a page can do and a screenshot cannot. */
const encode = async (file, from, type, quality) =>
  Buffer.from(
    await desk.evaluate(
      async ([data, type, quality]) => {
        const image = new Image();
        image.src = data;
        await image.decode();
        const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
        canvas.getContext("2d").drawImage(image, 0, 0);
        return canvas.toDataURL(type, quality).split(",")[1];
      },
      [`data:${from};base64,${file.toString("base64")}`, type, quality],
    ),
    "base64",
  );
const photo = (name) => encode(readFileSync(join(import.meta.dirname, `photo-${name}.svg`)), "image/svg+xml", "image/jpeg", 0.9);

async function take(person, name, viewport, colorScheme) {
  const shots = everyWidth
    ? SIZES.flatMap((size) => ["light", "dark"].map((scheme) => [`${name.replace(/-(light|dark)/, "")}-${size.width}-${scheme}`, size, scheme]))
    : [[name, viewport, colorScheme]];
  for (const [file, size, scheme] of shots) {
    await person.page.setViewportSize(size);
    await person.page.emulateMedia({ colorScheme: scheme });
    const png = await person.page.screenshot({ animations: "disabled" });
    writeFileSync(join(directory, `${file}.webp`), await encode(png, "image/png", "image/webp", QUALITY));
  }
  await person.page.setViewportSize(viewport);
}

const robots = new Map();
const by = (name) => robots.get(name);
const escape = (person) => person.page.keyboard.press("Escape");

/** Chooses `file` where a person at a device would. */
async function choose(person, file) {
  const [chooser] = await Promise.all([person.page.waitForEvent("filechooser"), person.button("Add picture").click()]);
  await chooser.setFiles({ name: "photo.jpg", mimeType: "image/jpeg", buffer: file });
  await person.text("Ready to send").waitFor();
}

/** A finger that rests on a message. */
async function longPress(person, text) {
  const article = person.article(text).first();
  const { x, y, width, height } = await article.locator(".bubble").boundingBox();
  const touchPoints = [{ x: x + width / 2, y: y + height / 2 }];
  const session = await person.page.context().newCDPSession(person.page);
  await session.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints });
  await person.toolbar().waitFor();
  await session.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
}

try {
  for (const name of ["Grandma", "tomas", "Ines", "omar", "yael", "priya_k"]) robots.set(name, await Robot.join(server, name));
  const { code } = await server.ask(by("Grandma").token, "POST", "/invites", { uses: 5, expires_in: 7 * 86_400_000 });
  const marta = await Person.visit(browser, server.url, { path: `/#invite=${code}`, viewport: WIDE });
  await marta.fill("marta", "three warm custard tarts");
  await marta.button("Show password").click();
  await marta.password().focus();
  await take(marta, "wide-light-welcome", WIDE, "light");
  await marta.leave();

  const ada = await Person.join(browser, server.url, "ada", { viewport: WIDE });
  const rooms = new Map();
  for (const room of ROOMS) rooms.set(room.name, (await server.ask(by("Grandma").token, "POST", "/rooms", room)).id);
  const lunch = { room: rooms.get("Sunday lunch") };
  await ada.open("Sunday lunch");
  await choose(ada, await photo("1931"));
  await ada.page.getByRole("textbox", { name: "Describe the picture" }).fill("A house and a tree, in brown");
  await ada.say("Twelve albums in the attic! This is the house in 1931.");
  await ada.sees("Twelve albums");
  const { id: albums } = (await server.messages(await ada.token(), `room=${lunch.room}&limit=1`))[0];
  for (const [name, emoji] of [["Grandma", "❤️"], ["tomas", "❤️"], ["Ines", "❤️"], ["omar", "😮"], ["yael", "😮"]]) by(name).react(albums, emoji);
  await by("Ines").say("The recipe: https://example.com/pasteis-de-nata, for twelve. Who brings the lemons?", lunch);
  await ada.act("The recipe", "Reply");
  await ada.say("I have lemons 🍋🍋🍋");
  await ada.say("And a car, if somebody needs a lift from the station.");
  await ada.sees("And a car");
  await ada.open("Lobby");
  await by("tomas").say("@ada could you take the folding table along? The shed opens with `4711`, or from the sofa:\n```\ncurl -X POST http://gate.lan/open -d 'code=4711'\n```", lunch);
  const arrives = await by("omar").say("سأصل الساعة 12:30 إن شاء الله!", lunch);
  for (const name of ["Ines", "yael"]) by(name).react(arrives, "👍");
  await by("Grandma").say("👏🥧", lunch);
  await by("priya_k").say("@ada can you take Thursday?", { room: rooms.get("School runs") });
  for (let n = 0; n < 11; n += 1) await by("omar").say("Or the lake again", { room: rooms.get("Holiday 2027") });
  await by("Ines").say("The folding table fits beside the tents.", { room: rooms.get("Holiday 2027") });
  await server.ask(await ada.token(), "PUT", `/rooms/${rooms.get("House and router")}/notify`, { notify: "nothing" });
  for (const [name, text] of [["tomas", "thank you!"], ["Grandma", "Shall I bring the albums?"], ["Grandma", "Or the cake?"]]) {
    const { id: room } = await server.ask(by(name).token, "POST", "/direct", { username: "ada" });
    await by(name).say(text, { room });
  }
  await ada.link("Grandma, 2 unread").waitFor();
  const phone = await Person.open(await browser.newContext({ viewport: PHONE, deviceScaleFactor: 2, isMobile: true, hasTouch: true }), server.url);
  phone.name = "ada";
  await phone.logIn();

  const types = async (person) => {
    for (const name of ["Ines", "yael"]) by(name).typing(lunch.room);
    await person.page.getByText(/Ines and yael are typing/).first().waitFor();
  };
  await ada.open("Sunday lunch");
  await ada.separator("3 new messages").waitFor();
  await ada.article("could you take").hover();
  await ada.toolbar().waitFor();
  for (const [name, viewport, scheme] of [["wide-light", WIDE, "light"], ["wide-dark", WIDE, "dark"], ["tablet-light", TABLET, "light"]]) {
    if (everyWidth && name !== "wide-light") continue;
    await ada.page.setViewportSize(viewport);
    await ada.article("could you take").hover();
    await types(ada);
    await take(ada, name, viewport, scheme);
  }
  await ada.page.setViewportSize(WIDE);
  await ada.button("Search").last().click();
  await ada.page.getByRole("searchbox", { name: "Search messages" }).fill("folding table");
  await ada.page.getByRole("link", { name: /fits beside/ }).waitFor();
  await take(ada, "wide-light-search", WIDE, "light");
  await escape(ada);
  const settings = await ada.settings();
  await settings.getByRole("tab", { name: "Looks" }).click();
  await take(ada, "wide-light-settings", WIDE, "light");
  await settings.getByRole("tab", { name: "Devices" }).click();
  await ada.page.getByText("This device").first().waitFor();
  await take(ada, "wide-dark-security", WIDE, "dark");
  await escape(ada);
  await ada.button("Invite people").click();
  await ada.page.locator(".qr svg").waitFor();
  await take(ada, "wide-light-invite", WIDE, "light");
  await escape(ada);
  await server.ask(await ada.token(), "POST", "/rooms", { name: "Garden", emoji: "🌻", topic: "What grows, and who waters it", kind: "open" });
  await ada.open("Garden");
  await ada.text("It is quiet in here.").waitFor();
  await take(ada, "wide-light-empty", WIDE, "light");
  await ada.open("Sunday lunch");

  await phone.button("Rooms").click();
  await take(phone, "phone-light-rooms", PHONE, "light");
  // Where there is room for them at the side, the sheet closes.
  if (everyWidth) await phone.button("Rooms").click();
  await phone.open("Sunday lunch");
  for (const scheme of ["light", "dark"]) {
    await types(phone);
    await take(phone, `phone-${scheme}`, PHONE, scheme);
    if (everyWidth) break;
  }
  await longPress(phone, "And a car");
  await take(phone, "phone-dark-actions", PHONE, "dark");
  await escape(phone);
  await longPress(phone, "could you take");
  await phone.toolbar().getByRole("button", { name: "Reply", exact: true }).click();
  await choose(phone, await photo("natas"));
  await phone.box().pressSequentially("Table is in the car. These are still warm, and @to");
  await phone.page.getByRole("option", { name: /tomas/ }).waitFor();
  await take(phone, "phone-dark-compose", PHONE, "dark");
  await phone.box().fill("");
  await phone.button("Remove the picture").click();
  await phone.button("Do not reply").click();

  await ada.page.evaluate(
    ([key, room]) => {
      const failed = { room, content: "Table is in the car.", username: "ada", created_at: Date.now(), after: 0, state: "failed", reason: { code: "unavailable" } };
      localStorage.setItem(key, JSON.stringify(failed));
      dispatchEvent(new StorageEvent("storage", { key, newValue: "" }));
    },
    ["chinwag.outbox.ada/n1", lunch.room],
  );
  // Without a server that opens which the worker has by then.
  const isKept = async () => Boolean(await caches.match(new URL("view/dialogs/settings-panels.js", location.href)));
  await becomes(() => phone.page.evaluate(isKept), true);
  await server.kill();
  for (const person of [ada, phone]) {
    await person.is(/^Reconnecting/);
    for (const text of ["Running ten minutes late, start without me", "and keep some soup"]) {
      await person.box().fill(text);
      await person.button("Send").click();
    }
    await person.text("Waiting for the connection").last().waitFor();
  }
  await take(ada, "wide-dark-away", WIDE, "dark");
  await phone.logOut();
  await phone.page.getByRole("alertdialog").waitFor();
  await take(phone, "phone-dark-confirm", PHONE, "dark");
} finally {
  await browser.close();
  await server.close();
}
