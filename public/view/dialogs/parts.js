// What dialogs are put together from. Every control has a name, and what goes wrong is said beside it.
//
//   group(title, ...lines)                            lines that belong together, under a heading (title may be null)
//   line({ text, hint, face }, ...controls)           words, and what is done about them
//   toggle(text, hint, on, change)                    a line with a switch; `change(on)` may return what it is then
//   choices(text, hint, options, value, change)       a line of a few `[value, words]`, one of them chosen
//   select(label, options, value, change)             a list of many
//   field({ label, hint, ...attributes })             a form's field: `.element`, `.input`, and `.say(words)`, what is to be corrected in it
//   reveal(text)                                      the button of a form's `revealPasswords`
//   button(text, { kind, press })                     busy while `press` runs
//   alert()                                           where it is said what went wrong: `.element`, `.say(words)`
//   saying(alert, action)                             runs it, and says what went wrong; resolves to whether it went well

import { inWords } from "../../api.js";
import { t } from "../../i18n/index.js";
import { el, icon } from "../dom.js";
import { busy } from "./dialog.js";

let count = 0;
const newId = () => `part-${(count += 1)}`;

export function group(title, ...lines) {
  const box = el("div", { class: "group" }, ...lines);
  if (title === null) return box;
  const id = newId();
  return el("section", { "aria-labelledby": id }, el("h3", { id, text: title }), box);
}

export function line({ text, hint, face = null, id = null }, ...controls) {
  const words = el(
    "span",
    { class: "words" },
    el("span", { id, text, dir: "auto" }),
    hint ? el("small", { text: hint }) : null,
  );
  return el("div", { class: "line" }, face, words, ...controls);
}

export function toggle(text, hint, on, change) {
  const id = newId();
  const set = (isOn) => control.setAttribute("aria-checked", String(isOn));
  const control = el("button", {
    type: "button",
    class: "switch",
    role: "switch",
    "aria-labelledby": id,
    on: {
      click: async () => {
        const wanted = control.getAttribute("aria-checked") !== "true";
        set((await change(wanted)) ?? wanted);
      },
    },
  });
  set(on);
  return line({ text, hint, id }, control);
}

export function choices(text, hint, options, value, change) {
  const id = newId();
  const name = newId();
  const radios = options.map(([option, words]) =>
    el(
      "label",
      {},
      el("input", {
        type: "radio",
        class: "unseen",
        name,
        value: String(option),
        checked: option === value,
        on: { change: () => change(option) },
      }),
      el("span", { dir: "auto", text: words }),
    ),
  );
  return line(
    { text, hint, id },
    el("div", { class: "segments", role: "radiogroup", "aria-labelledby": id }, ...radios),
  );
}

export function select(label, options, value, change = () => {}) {
  const list = el(
    "select",
    { "aria-label": label, on: { change: () => change(list.value) } },
    ...options.map(([option, words]) => el("option", { value: option, text: words })),
  );
  list.value = value;
  return list;
}

export function field({ label, hint, ...attributes }) {
  const id = newId();
  const hintId = hint ? newId() : null;
  const error = alert();
  error.element.id = newId();
  const input = el("input", {
    id,
    dir: "auto",
    autocomplete: "off",
    "aria-describedby": [hintId, error.element.id].filter(Boolean).join(" "),
    ...attributes,
  });
  const element = el(
    "div",
    { class: "field" },
    el("label", { for: id, text: label }),
    input,
    hint ? el("p", { class: "hint", id: hintId, text: hint }) : null,
    error.element,
  );
  const say = (words) => {
    error.say(words);
    if (!words) return input.removeAttribute("aria-invalid");
    input.setAttribute("aria-invalid", "true");
    input.focus();
  };
  input.addEventListener("input", () => say(""));
  return { element, input, say };
}

export const reveal = (text) =>
  el("button", { type: "button", class: "reveal button plain compact", "aria-pressed": "false", text });

export function button(text, { kind = "", press, name = null, sign = null }) {
  const made = el(
    "button",
    { type: "button", class: `button compact ${kind}`, "aria-label": name, on: { click: () => busy(made, press) } },
    sign ? icon(sign) : null,
    el("span", { text }),
  );
  return made;
}

export function alert() {
  const element = el("p", { class: "error", role: "alert", hidden: true });
  const say = (words) => {
    element.textContent = words;
    element.hidden = !words;
  };
  return { element, say };
}

export async function saying(alert, action) {
  alert.say("");
  try {
    await action();
    return true;
  } catch (error) {
    alert.say(error?.code ? inWords(error) : t("error.other"));
    return false;
  }
}
