// A picture for a message: chosen, pasted or dropped; drawn anew and smaller before it leaves the device, so that nothing goes along
// that a camera wrote into the file; previewed with a field for its description.
//
//   open(app, file)     without `file` one is chosen

import { inWords } from "../../api.js";
import { t, worded } from "../../i18n/index.js";
import { el, icon } from "../dom.js";

const SIDE = 1_600;
const BYTES = 400 * 1024;
const QUALITIES = [0.86, 0.75, 0.6, 0.45];
const SMALLER = 0.75;
const ALT_LENGTH = 1_000;
/** What is larger than this no camera makes; opening it would cost the page its memory. */
const FILE_BYTES = 64 * 1024 * 1024;

export async function open(app, file = null) {
  const chosen = file ?? (await choose());
  if (chosen) new Attached(app, chosen);
}

/** Resolves to a file, or to null. */
function choose() {
  const input = el("input", { type: "file", accept: "image/*", hidden: true });
  document.body.append(input);
  return new Promise((resolve) => {
    const done = () => {
      input.remove();
      resolve(input.files[0] ?? null);
    };
    input.addEventListener("change", done);
    input.addEventListener("cancel", done);
    input.click();
  });
}

class Attached {
  #app;
  #file;
  #element;
  #image = el("img", { alt: "" });
  #alt;
  #progress = el("progress", { "aria-label": () => t("picture.sending") });
  #status = el("p", { class: "hint", role: "status" });
  #again;
  #blob = null;
  #uploaded = null;

  constructor(app, file) {
    this.#app = app;
    this.#file = file;
    this.#alt = el("input", {
      maxlength: ALT_LENGTH,
      "aria-label": () => t("picture.describe"),
      placeholder: () => t("picture.describe"),
      autocomplete: "off",
      dir: "auto",
    });
    this.#again = el("button", {
      type: "button",
      class: "button compact",
      text: () => t("message.retry"),
      hidden: true,
      on: { click: () => this.#upload() },
    });
    const away = el(
      "button",
      { type: "button", class: "icon", "aria-label": () => t("picture.remove"), on: { click: () => this.#remove() } },
      icon("x"),
    );
    this.#element = el(
      "div",
      { class: "attached", role: "group", "aria-label": () => t("message.picture") },
      this.#image,
      el("div", { class: "about" }, this.#alt, this.#progress, this.#status, this.#again),
      away,
    );
    this.#alt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      app.composer.focus();
    });
    app.composer.attach(this.#element, () => this.#take());
    this.#prepare();
  }

  async #prepare() {
    this.#say(() => t("picture.preparing"));
    try {
      this.#blob = await smaller(this.#file);
    } catch {
      this.#failed(() => t("picture.unreadable"), false);
      return;
    }
    if (!this.#element.isConnected) return;
    const address = URL.createObjectURL(this.#blob);
    this.#image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    this.#image.src = address;
    this.#alt.focus();
    await this.#upload();
  }

  async #upload() {
    this.#again.hidden = true;
    this.#progress.hidden = false;
    this.#say(() => t("picture.sending"));
    try {
      this.#uploaded = await this.#app.api.uploadImage(this.#blob);
      this.#progress.hidden = true;
      this.#say(() => t("picture.ready"));
    } catch (error) {
      const write = () => (error.code === "not_found" ? t("picture.off") : error.code ? inWords(error) : t("error.other"));
      this.#failed(write, error.code !== "not_found");
    }
  }

  #take() {
    if (!this.#uploaded && this.#again.hidden) this.#say(() => t("picture.wait"));
    return this.#uploaded && { ...this.#uploaded, alt: this.#alt.value.trim() };
  }

  #say(write) {
    worded(this.#status, "text", write);
    this.#status.classList.remove("error");
  }

  #failed(write, canTryAgain) {
    this.#say(write);
    this.#status.classList.add("error");
    this.#progress.hidden = true;
    this.#again.hidden = !canTryAgain;
  }

  #remove() {
    this.#app.composer.attach(null);
    this.#app.composer.focus();
  }
}

/** `file` drawn anew, at most SIDE pixels a side and BYTES large. */
async function smaller(file) {
  if (file.size > FILE_BYTES) throw new RangeError("too large");
  const bitmap = await createImageBitmap(file);
  let scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  try {
    for (;;) {
      const canvas = draw(bitmap, scale);
      for (const quality of QUALITIES) {
        const blob = await encode(canvas, quality);
        if (blob.size <= BYTES) return blob;
      }
      scale *= SMALLER;
    }
  } finally {
    bitmap.close();
  }
}

function draw(bitmap, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** WebP, or where the browser cannot write that, JPEG, which has no transparency. */
async function encode(canvas, quality) {
  const blob = await toBlob(canvas, "image/webp", quality);
  if (blob?.type === "image/webp") return blob;
  const opaque = document.createElement("canvas");
  opaque.width = canvas.width;
  opaque.height = canvas.height;
  const context = opaque.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, opaque.width, opaque.height);
  context.drawImage(canvas, 0, 0);
  const jpeg = await toBlob(opaque, "image/jpeg", quality);
  if (!jpeg) throw new Error("this browser draws no pictures");
  return jpeg;
}

const toBlob = (canvas, type, quality) => new Promise((resolve) => canvas.toBlob(resolve, type, quality));
