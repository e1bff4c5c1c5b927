// Pictures: chosen, pasted, dropped; made smaller in the page, and described.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { Person, Server, becomes, eventually, launch } from "../harness.js";

let server, browser, ada, grace;

before(async () => {
  server = await Server.start();
  browser = await launch();
  ada = await Person.join(browser, server.url, "ada");
  grace = await Person.join(browser, server.url, "grace");
});

after(async () => {
  await browser?.close();
  await server?.close();
});

afterEach(() => {
  for (const person of [ada, grace]) person.assertQuiet();
});

const describe = (person) => person.page.getByRole("textbox", { name: "Describe the picture" });

/** A photograph as a camera makes it: large, hard to compress, with Exif that names a place. */
const photograph = () =>
  ada.page.evaluate(async () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 3_000, height: 2_000 });
    const context = canvas.getContext("2d");
    for (let y = 0; y < 2_000; y += 20) {
      for (let x = 0; x < 3_000; x += 20) {
        context.fillStyle = `hsl(${(x * 7 + y * 13) % 360} 80% ${30 + ((x * y) % 50)}%)`;
        context.fillRect(x, y, 20, 20);
      }
    }
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const exif = new TextEncoder().encode("Exif\0\0MM\0*\0\0\0\b GPS 52.5163 N 13.3777 E");
    const segment = [0xff, 0xe1, 0, exif.length + 2, ...exif];
    const file = new Blob([bytes.slice(0, 2), new Uint8Array(segment), bytes.slice(2)]);
    return new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result.split(",")[1]);
      reader.readAsDataURL(file);
    });
  });

async function choose(person, file) {
  const [chooser] = await Promise.all([person.page.waitForEvent("filechooser"), person.button("Add picture").click()]);
  await chooser.setFiles(file);
}

/** Puts a picture in the way of a paste or a drop. */
const hand = (person, type) =>
  person.box().evaluate(async (box, type) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
    canvas.getContext("2d").fillRect(0, 0, 20, 20);
    const blob = await new Promise((done) => canvas.toBlob(done));
    const transfer = new DataTransfer();
    transfer.items.add(new File([blob], "a.png", { type: "image/png" }));
    const event =
      type === "paste"
        ? new ClipboardEvent(type, { clipboardData: transfer, bubbles: true, cancelable: true })
        : new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true });
    box.dispatchEvent(event);
  }, type);

test("a photograph leaves the device smaller, and without what the camera wrote into it", async () => {
  const buffer = Buffer.from(await photograph(), "base64");
  assert.ok(buffer.includes("GPS"));
  await ada.page.evaluate(() => {
    const { fetch } = window;
    window.fetch = (address, options) => {
      if (options?.body instanceof Blob) window.sent = options.body;
      return fetch(address, options);
    };
  });
  await choose(ada, { name: "a.jpg", mimeType: "image/jpeg", buffer });
  await ada.text("Ready to send").waitFor();
  const { size, type, side, says } = await ada.page.evaluate(async () => {
    const { width, height } = await createImageBitmap(window.sent);
    const text = new TextDecoder("latin1").decode(await window.sent.arrayBuffer());
    return { size: window.sent.size, type: window.sent.type, side: Math.max(width, height), says: text.includes("GPS") };
  });
  assert.ok(size <= 400 * 1024, `${size} bytes`);
  assert.ok(side <= 1_600, `${side} pixels`);
  assert.equal(says, false);
  assert.match(type, /webp|jpeg/);
});

test("it is described, sent, and shown to others with its description", async () => {
  await ada.hasFocus("Describe the picture");
  await describe(ada).fill("Many small squares");
  await describe(ada).press("Enter");
  await ada.hasFocus("Message");
  await ada.say("look");
  await grace.log().getByRole("img", { name: "Many small squares" }).waitFor();
  await grace.article("look").waitFor();
  await becomes(() => describe(ada).count(), 0);
});

for (const way of ["paste", "drop"]) {
  test(`a picture comes by ${way}, and goes without a word`, async () => {
    await hand(ada, way);
    await ada.text("Ready to send").waitFor();
    await describe(ada).fill(`by ${way}`);
    await ada.button("Send").click();
    await grace
      .log()
      .getByRole("img", { name: `by ${way}` })
      .waitFor();
  });
}

test("pictures are shown again after their module could not be loaded once", async () => {
  // What the service worker has kept does not fail.
  const hal = await Person.visit(browser, server.url, { name: "hal", serviceWorkers: "block" });
  await hal.page.route("**/view/pictures.js", (route) => route.abort());
  await hal.signUp();
  await hal.log().locator("img.broken").first().waitFor();
  await hal.page.unroute("**/view/pictures.js");
  await hand(ada, "paste");
  await ada.text("Ready to send").waitFor();
  await describe(ada).fill("after the failure");
  await ada.button("Send").click();
  const picture = hal.log().getByRole("img", { name: "after the failure" });
  await picture.waitFor();
  await eventually(async () => assert.ok(await picture.evaluate(({ naturalWidth }) => naturalWidth > 0)));
  await hal.leave();
});

test("one is chosen among pictures, wherever the device has them: a camera too, and not only that", async () => {
  const [chooser] = await Promise.all([ada.page.waitForEvent("filechooser"), ada.button("Add picture").click()]);
  const asked = await chooser.element().evaluate(({ accept, attributes }) => [accept, "capture" in attributes]);
  assert.deepEqual(asked, ["image/*", false]);
  await chooser.setFiles([]);
});

test("while a picture is on its way there is a bar, and words", async () => {
  let letGo;
  const held = new Promise((resolve) => (letGo = resolve));
  await ada.page.route("**/images", async (route) => {
    await held;
    await route.continue();
  });
  await hand(ada, "paste");
  const bar = ada.page.getByRole("progressbar", { name: "Sending the picture…" });
  await bar.waitFor();
  await eventually(async () => assert.ok((await bar.boundingBox()).width > 20));
  await ada.text("Sending the picture…").waitFor();
  letGo();
  await ada.text("Ready to send").waitFor();
  await bar.waitFor({ state: "hidden" });
  await ada.page.unroute("**/images");
  await ada.button("Remove the picture").click();
});

test("text does not go without the picture it was written for", async () => {
  let go;
  const held = new Promise((done) => (go = done));
  await ada.page.route("**/images", async (route) => {
    await held;
    await route.continue();
  });
  await hand(ada, "paste");
  await describe(ada).fill("late");
  await ada.say("with the late one");
  await ada.text("The picture is still on its way. Send again in a moment.").waitFor();
  await becomes(() => ada.box().inputValue(), "with the late one");
  go();
  await ada.text("Ready to send").waitFor();
  await ada.page.unroute("**/images");
  await ada.box().press("Enter");
  await grace.log().getByRole("img", { name: "late" }).waitFor();
});

test("an upload that fails is said, and tried again when asked", async () => {
  await ada.page.route("**/images", (route) => route.abort());
  await hand(ada, "paste");
  await ada.text("The server cannot be reached. Check your connection and try again.").waitFor();
  await ada.page.unroute("**/images");
  await ada.button("Retry").click();
  await ada.text("Ready to send").waitFor();
  await ada.button("Remove the picture").click();
  await becomes(() => describe(ada).count(), 0);
  await ada.hasFocus("Message");
});

test("what is no picture is said", async () => {
  await choose(ada, { name: "a.png", mimeType: "image/png", buffer: Buffer.from("not a picture") });
  await ada.text("This is not a picture that can be opened here.").waitFor();
  await ada.button("Remove the picture").click();
});
