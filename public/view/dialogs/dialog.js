// What every dialog stands on: a modal `<dialog>` with a heading that names it, a button "Close", Escape, a press beside it,
// and the focus back where it was. On a phone it is a sheet.
//
//   const dialog = openDialog({ title, class, closable = true, role }, ...content)     shown at once
//   dialog.element, dialog.close(value), dialog.closed (a promise of the value)
//   confirm({ title, text, yes, no, danger })      resolves to true or false
//   busy(button, action)          runs an async action; the button says that it is busy, and a second press does nothing

import { t } from "../../i18n/index.js";
import { el, icon } from "../dom.js";

let count = 0;

export function openDialog({ title, class: className = "", closable = true, role = null }, ...content) {
  const before = document.activeElement;
  const id = `dialog-${(count += 1)}`;
  const element = el(
    "dialog",
    { class: `dialog ${className}`, "aria-labelledby": id, role },
    el("h2", { id, text: title }),
    ...content,
    closable ? el("button", { type: "button", class: "icon x", "aria-label": t("dialog.close"), on: { click: () => dialog.close() } }, icon("x")) : null,
  );
  let settle;
  const dialog = {
    element,
    closed: new Promise((resolve) => (settle = resolve)),
    close(value) {
      if (!element.isConnected) return;
      element.close();
      element.remove();
      if (before?.isConnected) before.focus();
      settle(value);
    },
  };
  element.addEventListener("cancel", (event) => {
    event.preventDefault();
    dialog.close();
  });
  // Its padding and its scrollbar are the element's too. Closed at the end of the press, or the press would take the focus away
  // again, and a finger's would go on to what is beneath.
  const isBeside = ({ target, clientX: x, clientY: y }) => {
    const { left, right, top, bottom } = element.getBoundingClientRect();
    return target === element && (x < left || x > right || y < top || y > bottom);
  };
  let beganBeside = false;
  element.addEventListener("pointerdown", (event) => (beganBeside = isBeside(event)));
  element.addEventListener("click", (event) => beganBeside && isBeside(event) && dialog.close());
  document.body.append(element);
  element.showModal();
  return dialog;
}

export async function confirm({ title, text, yes, no = t("dialog.cancel"), danger = true }) {
  const answer = (value, name, words) => el("button", { type: "button", class: `button compact ${name}`, text: words, on: { click: () => dialog.close(value) } });
  const stay = answer(false, "", no);
  const dialog = openDialog(
    { title, class: "confirm", closable: false, role: "alertdialog" },
    text ? el("p", { text }) : null,
    el("div", { class: "row" }, stay, answer(true, danger ? "danger" : "primary", yes)),
  );
  stay.focus();
  return (await dialog.closed) === true;
}

export async function busy(button, action) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    await action();
  } finally {
    button.removeAttribute("aria-busy");
  }
}
