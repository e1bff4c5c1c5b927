// The navigation "Rooms": a link a room. Where the page is wide it is a side, where it is narrow a sheet that a button opens.
//
//   new RoomsNav(app, nav, button)
//   current = id          the open room
//   open(open, returnFocus), isOpen, isNarrow      the sheet, and whether the page has room for no more than that
//   close()               at the end of a session

import { compare, stamp, t } from "../i18n/index.js";
import { LOBBY } from "../store/rooms.js";
import { avatar, el, icon, tile } from "./dom.js";
import { plain } from "./text.js";

/** However fast messages come, the list is brought up to date at once and then this often. */
const EVERY_MS = 250;
/** Only so narrow a page has the rooms in a sheet; as in the style sheet. */
const NARROW_REM = 56;

export class RoomsNav {
  isNarrow = false;

  #nav;
  #button;
  #main;
  #rooms;
  #people;
  #drafts;
  #self;
  #current = null;
  #items = new Map();
  #timer = null;
  #isStale = false;
  #resized = new ResizeObserver(() => this.#measure());
  #abort = new AbortController();

  constructor({ rooms, people, drafts, username }, nav, button) {
    this.#nav = nav;
    this.#button = button;
    this.#main = nav.parentElement.querySelector("main");
    this.#rooms = rooms;
    this.#people = people;
    this.#drafts = drafts;
    this.#self = username;
    const { signal } = this.#abort;
    rooms.addEventListener("change", this.#later, { signal });
    people.addEventListener("change", this.#later, { signal });
    people.addEventListener("typing", this.#later, { signal });
    drafts.addEventListener("change", this.#later, { signal });
    button.addEventListener("click", () => this.open(!this.isOpen), { signal });
    nav.addEventListener("click", ({ target }) => target.closest("a.place") && this.open(false), { signal });
    // A press beside the sheet means: away with it.
    nav.addEventListener("pointerdown", ({ target }) => target === nav && this.open(false), { signal });
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    this.#resized.observe(document.body);
    this.#measure();
    this.open(false);
  }

  close() {
    this.#abort.abort();
    this.#resized.disconnect();
    clearTimeout(this.#timer);
  }

  set current(id) {
    this.#current = id;
    this.#render();
  }

  get isOpen() {
    return this.#button.getAttribute("aria-expanded") === "true";
  }

  open(open, returnFocus = false) {
    this.#button.setAttribute("aria-expanded", String(open));
    this.#nav.dataset.open = String(open);
    // Behind the sheet nothing is to be reached.
    this.#main.inert = open;
    this.#render();
    if (open) (this.#nav.querySelector("[aria-current]") ?? this.#nav.querySelector("a.place"))?.focus();
    else if (returnFocus) this.#button.focus();
  }

  /** As the style sheet does: in `rem`, so that large text counts. */
  #measure() {
    const size = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
    const isNarrow = document.body.clientWidth < NARROW_REM * size;
    if (isNarrow === this.isNarrow) return;
    this.isNarrow = isNarrow;
    this.open(false);
  }

  #key(event) {
    if (event.key !== "Escape" || !this.isOpen || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    this.open(false, true);
  }

  #later = () => {
    if (this.#timer !== null) {
      this.#isStale = true;
      return;
    }
    this.#render();
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#isStale) this.#later();
    }, EVERY_MS);
  };

  #render() {
    this.#isStale = false;
    const order = this.isNarrow ? (rooms) => rooms : (rooms) => [...rooms].sort(this.#byName);
    const items = new Map();
    for (const [selector, rooms] of [[".open-rooms", this.#rooms.open], [".direct-rooms", this.#rooms.direct]]) {
      const list = this.#nav.querySelector(selector);
      const wanted = order(rooms).map((room) => {
        const item = this.#items.get(room.id) ?? { element: el("li", {}, el("a", { class: "place" })), shown: "" };
        items.set(room.id, item);
        this.#dress(item, room);
        return item.element;
      });
      let cursor = list.firstElementChild;
      for (const element of wanted) {
        if (element === cursor) cursor = cursor.nextElementSibling;
        else list.insertBefore(element, cursor);
      }
      while (cursor) {
        const next = cursor.nextElementSibling;
        cursor.remove();
        cursor = next;
      }
    }
    this.#items = items;
    this.#dressButton();
  }

  /** Someone who looks for a room finds it where it was; only where there is room for one list, the newest come first. */
  #byName = (a, b) =>
    a.archived - b.archived || (b.id === LOBBY) - (a.id === LOBBY) || compare(this.#rooms.nameOf(a), this.#rooms.nameOf(b)) || a.id - b.id;

  #dress(item, room) {
    const name = this.#rooms.nameOf(room);
    const facts = {
      name,
      current: room.id === this.#current,
      unread: room.unread,
      mentioned: room.mentioned,
      typing: this.#people.typing(room.id),
      draft: room.id === this.#current ? "" : this.#drafts.get(room.id),
      here: room.kind === "direct" && this.#people.isHere(this.#rooms.faceOf(room)),
      kind: room.kind,
      emoji: room.emoji,
      archived: room.archived,
      notify: room.notify,
      hint: this.#hint(room),
      time: room.last ? stamp(room.last.created_at) : "",
      language: t("rooms.draft"),
    };
    const shown = JSON.stringify(facts);
    if (item.shown === shown) return;
    item.shown = shown;
    const link = item.element.firstElementChild;
    link.href = `#/room/${room.id}`;
    link.title = detailsOf(facts);
    if (facts.current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    link.className = ["place", facts.unread > 0 && "unread", (facts.notify === "nothing" || facts.archived) && "muted"].filter(Boolean).join(" ");
    const face = facts.kind === "direct" ? avatar(this.#rooms.faceOf(room), facts.here ? "here" : "gone") : tile(facts.emoji || name.slice(0, 1).toUpperCase());
    // The name of the link is what is written on it and, for the ear only, what the badges say.
    const label = el("span", { class: "label" }, el("bdi", { text: name }), el("span", { class: "said", text: countsOf(facts) }));
    link.replaceChildren(face, label, this.#hintOf(facts), sideOf(facts));
  }

  #hint({ last }) {
    if (!last) return "";
    const text = last.deleted ? t("message.deleted") : plain(last.content) || (last.image ? t("message.picture") : "");
    // One line of it is shown.
    const line = text.slice(0, 120).replace(/\s+/g, " ");
    return last.username === this.#self ? t("rooms.own", { text: line }) : t("rooms.others", { name: last.username, text: line });
  }

  #hintOf({ typing, draft, hint }) {
    if (typing.length > 0) return el("span", { class: "hint", "aria-hidden": "true" }, dots());
    if (draft) return el("span", { class: "hint", "aria-hidden": "true" }, el("b", { text: t("rooms.draft") }), ` ${draft.slice(0, 80)}`);
    return el("span", { class: "hint", "aria-hidden": "true", dir: "auto", text: hint });
  }

  #dressButton() {
    const unread = this.#rooms.all.filter(({ id, unread, notify }) => id !== this.#current && unread > 0 && notify !== "nothing").length;
    const dot = this.#button.querySelector(".dot");
    dot.hidden = unread === 0;
    dot.dataset.count = unread;
    this.#button.title = unread > 0 ? t("rooms.unreadRooms", { n: unread }) : "";
  }
}

/** Of "School runs, 12 unread, 1 mention" what follows the name. */
function countsOf({ unread, mentioned }) {
  return (unread > 0 ? `, ${t("rooms.unread", { n: unread })}` : "") + (mentioned > 0 ? `, ${t("rooms.mentions", { n: mentioned })}` : "");
}

/** What the signs at its side mean. */
function detailsOf({ archived, notify, draft, kind }) {
  const details = [draft && t("rooms.draft"), archived && t("rooms.archived"), notify === "nothing" && t("rooms.silenced"), kind === "private" && t("rooms.private")];
  return details.filter(Boolean).join(", ");
}

function sideOf({ kind, unread, mentioned, typing, draft, notify, archived, time }) {
  const side = el("span", { class: "side", "aria-hidden": "true" }, el("span", { class: "stamp", text: time }));
  if (mentioned > 0) side.append(el("span", { class: "badge loud", text: kind === "direct" ? String(unread) : `@${mentioned}` }));
  else if (unread > 0) side.append(el("span", { class: kind === "direct" ? "badge loud" : "badge", text: unread > 999 ? "999+" : String(unread) }));
  else if (typing.length > 0) side.append(dots());
  else if (draft) side.append(el("span", { class: "draft", text: t("rooms.draft") }));
  else if (archived) side.append(icon("archive"));
  else if (notify === "nothing") side.append(icon("belloff"));
  else if (kind === "private") side.append(icon("lock"));
  return side;
}

const dots = () => el("span", { class: "typing-dots" }, el("i"), el("i"), el("i"));

export function typingInWords([first, second, ...more]) {
  if (!first) return "";
  if (!second) return t("typing.one", { name: first });
  return more.length === 0 ? t("typing.two", { name: first, other: second }) : t("typing.several");
}
