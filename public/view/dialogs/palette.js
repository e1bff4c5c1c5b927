// Ctrl K: one field that finds rooms and people, and hands on to the search of messages.

import { compare, t } from "../../i18n/index.js";
import { avatar, el, icon, tile } from "../dom.js";
import { openDialog } from "./dialog.js";

const AFTER_MS = 120;
const SHOWN = 12;

const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

export function open(app) {
  if (document.querySelector("dialog.palette")) return;
  const list = el("div", { class: "results", role: "listbox", id: "palette-list", "aria-label": t("palette.title") });
  const input = el("input", {
    type: "text",
    role: "combobox",
    "aria-label": t("palette.title"),
    "aria-expanded": "true",
    "aria-controls": "palette-list",
    "aria-autocomplete": "list",
    placeholder: t("palette.title"),
    autocomplete: "off",
    spellcheck: "false",
    dir: "auto",
  });
  let options = [];
  let current = 0;
  let people = [];
  let turn = 0;
  let timer = null;

  function find() {
    const wanted = folded(input.value.trim());
    const begins = (name) => (folded(name).startsWith(wanted) ? 0 : 1);
    const rooms = [...app.rooms.open, ...app.rooms.direct]
      .map((room) => ({ room, name: app.rooms.nameOf(room) }))
      .filter(({ name }) => folded(name).includes(wanted));
    // What was last talked in comes first; once something is typed, what begins so.
    if (wanted) rooms.sort((a, b) => begins(a.name) - begins(b.name));
    const talked = new Set(app.rooms.direct.map((room) => app.rooms.faceOf(room)));
    const others = people
      .filter(({ username }) => !talked.has(username) && username !== app.username)
      .sort((a, b) => compare(a.username, b.username));
    options = [
      ...rooms.slice(0, SHOWN).map(({ room, name }) => ({
        face:
          room.kind === "direct"
            ? avatar(app.rooms.faceOf(room), app.people.isHere(app.rooms.faceOf(room)) ? "here" : "gone")
            : tile(room.emoji || name.slice(0, 1).toUpperCase()),
        name,
        hint: room.archived
          ? t("rooms.archived")
          : room.kind === "private"
            ? t("rooms.private")
            : room.unread > 0
              ? t("rooms.unread", { n: room.unread })
              : "",
        run: () => app.go(room.id),
      })),
      ...others
        .slice(0, SHOWN)
        .map(({ username, online }) => ({
          face: avatar(username, online ? "here" : "gone"),
          name: username,
          hint: t("palette.write"),
          run: () => app.direct(username),
        })),
      ...(wanted
        ? [
            {
              face: el("span", { class: "tile", "aria-hidden": "true" }, icon("search")),
              name: t("palette.search", { text: input.value.trim() }),
              hint: "",
              run: () => app.open("search", input.value.trim()),
            },
          ]
        : []),
    ];
    current = 0;
    list.replaceChildren(...options.map(option));
    mark();
  }

  const option = ({ face, name, hint }, index) =>
    el(
      "div",
      {
        class: "option",
        role: "option",
        id: `palette-${index}`,
        on: { click: () => run(index), pointermove: () => index !== current && mark((current = index)) },
      },
      face,
      el("span", { class: "words", dir: "auto", text: name }),
      hint ? el("small", { text: hint }) : null,
    );

  function mark() {
    [...list.children].forEach((element, index) => element.setAttribute("aria-selected", String(index === current)));
    if (options.length > 0) input.setAttribute("aria-activedescendant", `palette-${current}`);
    else input.removeAttribute("aria-activedescendant");
  }

  function run(index) {
    const chosen = options[index];
    if (!chosen) return;
    dialog.close();
    chosen.run();
  }

  async function ask() {
    const mine = (turn += 1);
    try {
      const { users } = await app.api.users(input.value.trim() || undefined);
      if (mine !== turn) return;
      people = users.filter(({ bot }) => !bot);
      const was = current;
      find();
      current = Math.min(was, Math.max(0, options.length - 1));
      mark();
    } catch {
      // Rooms are found without the server.
    }
  }

  input.addEventListener("input", () => {
    people = [];
    find();
    clearTimeout(timer);
    timer = setTimeout(ask, AFTER_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by !== undefined && options.length > 0) {
      event.preventDefault();
      current = (current + by + options.length) % options.length;
      mark();
      list.children[current].scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      run(current);
    }
  });
  const dialog = openDialog(
    { title: t("palette.title"), class: "palette" },
    el("div", { class: "query" }, icon("search"), input),
    list,
  );
  dialog.closed.then(() => {
    turn += 1;
    clearTimeout(timer);
  });
  find();
  ask();
  input.focus();
}
