// Elements, icons and the looks of a name. Text goes in as text: nothing here takes HTML.
//
//   el(tag, { class, text, on: { click }, data: { id }, hidden, ...attributes }, ...children)   a new element; a text or attribute
//                                    that is a function gives its words, again in another language
//   icon(name)                       an icon of the sprite in `index.html`
//   avatar(name, presence)           a name's face, for the eye only; `presence` is "here", "gone" or absent
//   tile(emoji)                      a room's face
//   paint(element, name)             gives `element` the colour of a name
//   isHidden(), isInSight()          of the page
//   copy(text)                       into the clipboard
//   passwordIn(input)                what was typed, ready to be sent; no field for a password is read otherwise
//   revealPasswords(form)            lets the form's button `.reveal` show what was typed into its fields for passwords
//   template(id)                     a translated copy of a `<template>`

import { translate, worded } from "../i18n/index.js";

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, { class: className, text, on = {}, data = {}, hidden, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (typeof text === "function") worded(element, "text", text);
  else if (text !== undefined) element.textContent = text;
  if (hidden) element.hidden = true;
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") worded(element, name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const [name, value] of Object.entries(data)) element.dataset[name] = value;
  for (const [type, handler] of Object.entries(on)) element.addEventListener(type, handler);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function template(id) {
  return translate(document.getElementById(id).content.firstElementChild.cloneNode(true));
}

export function avatar(name, presence) {
  const face = el("span", { class: "avatar", data: { initials: initialsOf(name) }, "aria-hidden": "true" });
  if (presence) face.dataset.presence = presence;
  return paint(face, name);
}

export const tile = (emoji) => el("span", { class: "tile", "aria-hidden": "true", text: emoji });

export function paint(element, name) {
  element.style.setProperty("--hue", hueOf(name));
  element.classList.add("hued");
  return element;
}

/** The same for the same name everywhere: FNV-1a, mixed at the end, since names that differ in a digit should differ in colour. */
export function hueOf(name) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < name.length; index += 1) hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) % 360;
}

function initialsOf(name) {
  const [first, second] = name.match(/[\p{L}\p{N}]/gu) ?? ["?"];
  return first.toUpperCase() + (second ?? "").toLowerCase();
}

/** The same letters, however this keyboard composes them: the server compares bytes. */
export const passwordIn = (input) => input.value.normalize("NFC");

/** A password that is shown is text: nothing may correct it, or send it to where spelling is checked. */
const AS_TYPED = { spellcheck: "false", autocapitalize: "none", autocorrect: "off" };

export function revealPasswords(form) {
  const button = form.querySelector(".reveal");
  const inputs = form.querySelectorAll("[type=password]");
  const show = (isShown) => {
    for (const input of inputs) input.type = isShown ? "text" : "password";
    button.setAttribute("aria-pressed", String(isShown));
  };
  for (const input of inputs) for (const [name, value] of Object.entries(AS_TYPED)) input.setAttribute(name, value);
  button.addEventListener("click", () => show(button.getAttribute("aria-pressed") !== "true"));
  // What is sent as text a browser may offer again, to anybody.
  form.addEventListener("submit", () => show(false));
}

export const isHidden = () => document.hidden || document.visibilityState === "hidden";

/** Whether somebody looks at this page: it is to be seen, and not left for another window. */
export const isInSight = () => !isHidden() && (document.hasFocus() || !isLeft);

let isLeft = false;
globalThis.addEventListener?.("blur", () => (isLeft = true));
globalThis.addEventListener?.("focus", () => (isLeft = false));

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard is there over HTTPS only; a selection is copied everywhere.
    copyBySelection(text);
  }
}

function copyBySelection(text) {
  const before = document.activeElement;
  const box = el("textarea", { class: "unseen", readonly: true });
  box.value = text;
  // Beneath a dialog nothing can be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
  before?.focus();
}
