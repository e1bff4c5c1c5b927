// The dialog "Settings": tabs, and "Log out" at its end. What is chosen holds at once, in this browser.
//
//   open(app, tab)     `tab` is one of TABS; "you" if none is named

import { t } from "../../i18n/index.js";
import { el, icon } from "../dom.js";
import { openDialog } from "./dialog.js";
import * as panels from "./settings-panels.js";

const TABS = [
  ["you", "user"],
  ["notifications", "bell"],
  ["looks", "sun"],
  ["devices", "laptop"],
  ["help", "help"],
];

export function open(app, wanted = "you") {
  if (document.querySelector("dialog.settings")) return;
  const panel = el("div", { class: "settings-body", role: "tabpanel", tabindex: "0", id: "settings-panel" });
  const tabs = TABS.map(([name, sign]) =>
    el(
      "button",
      {
        type: "button",
        role: "tab",
        id: `settings-${name}`,
        "aria-controls": "settings-panel",
        data: { name },
        on: { click: () => show(name) },
      },
      icon(sign),
      el("span", { text: t(`settings.${name}`) }),
    ),
  );
  const list = el("div", { class: "tabs", role: "tablist", "aria-label": t("settings.title") }, ...tabs);
  const logOut = el(
    "button",
    { type: "button", class: "button compact out", on: { click: leave } },
    icon("out"),
    el("span", { text: t("settings.logOut") }),
  );
  const version = app.about.version ? el("p", { class: "version", text: `chinwag ${app.about.version}` }) : null;

  function show(name) {
    for (const tab of tabs) {
      const isIt = tab.dataset.name === name;
      tab.setAttribute("aria-selected", String(isIt));
      tab.tabIndex = isIt ? 0 : -1;
      if (isIt) tab.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    }
    panel.setAttribute("aria-labelledby", `settings-${name}`);
    panel.replaceChildren(el("h3", { class: "what", text: t(`settings.${name}`) }), ...panels[name](app, dialog));
    panel.scrollTop = 0;
  }

  function leave() {
    dialog.close();
    app.logOut();
  }

  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(document.activeElement);
    const forward = document.documentElement.dir === "rtl" ? "ArrowLeft" : "ArrowRight";
    const backward = forward === "ArrowLeft" ? "ArrowRight" : "ArrowLeft";
    const to = { [forward]: at + 1, ArrowDown: at + 1, [backward]: at - 1, ArrowUp: at - 1, Home: 0, End: -1 }[
      event.key
    ];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const tab = tabs.at(to % tabs.length);
    show(tab.dataset.name);
    tab.focus();
  });

  const dialog = openDialog(
    { title: t("settings.title"), class: "settings" },
    list,
    panel,
    el("div", { class: "foot" }, logOut, version),
  );
  show(wanted);
  (tabs.find(({ dataset }) => dataset.name === wanted) ?? tabs[0]).focus();

  // In another language the whole dialog says something else.
  const root = document.documentElement;
  const observer = new MutationObserver(() => {
    const { name } = tabs.find((tab) => tab.tabIndex === 0).dataset;
    dialog.close();
    open(app, name);
  });
  observer.observe(root, { attributes: true, attributeFilter: ["lang"] });
  dialog.closed.then(() => observer.disconnect());
}
