// The panel "Search messages": what was said, in every room this person may read, as links into the conversation. On a phone it takes
// the conversation's place until one is followed.
//
//   open(app, text)     with what is searched for already

import { inWords } from "../../api.js";
import { compare, moment, stamp, t, worded } from "../../i18n/index.js";
import { avatar, el, icon, paint } from "../dom.js";
import { plain } from "../text.js";
import { select } from "./parts.js";

const AFTER_MS = 250;
const LENGTH = 100;
/** A bounded step of the server may find nothing: so many are taken by themselves before one is asked to press again. */
const STEPS = 5;
/** So much is shown before what was found, so that it is in sight. */
const LEAD = 60;

export function open(app, text = "") {
  const known = document.querySelector(".panel.search");
  if (known) {
    const field = known.querySelector("input");
    if (text) field.value = text;
    field.dispatchEvent(new Event("input"));
    return field.focus();
  }
  new Search(app, text);
}

class Search {
  #app;
  #input;
  #room;
  #from;
  #hits = el("div", { class: "hits" });
  #status = el("p", { class: "hint", role: "status" });
  #more;
  #panel;
  #before = null;
  #found = 0;
  #turn = 0;
  #timer = null;
  #asked = "";
  /** What is being searched for: the fields may have changed since. */
  #query = null;
  #returnTo = document.activeElement;

  constructor(app, text) {
    this.#app = app;
    this.#input = el("input", {
      type: "search",
      maxlength: LENGTH,
      "aria-label": () => t("search.title"),
      placeholder: () => t("search.title"),
      autocomplete: "off",
      enterkeyhint: "search",
      dir: "auto",
    });
    this.#input.value = text;
    const rooms = app.rooms.all
      .map((room) => [String(room.id), () => app.rooms.nameOf(room)])
      .sort(([, a], [, b]) => compare(a(), b()));
    this.#room = select(() => t("search.room"), [["", () => t("search.allRooms")], ...rooms], "", () => this.#begin());
    this.#from = select(() => t("search.from"), [["", () => t("search.anyone")]], "", () => this.#begin());
    this.#more = el("button", {
      type: "button",
      class: "button compact wide",
      text: () => t("search.more"),
      hidden: true,
      on: { click: () => this.#goOn() },
    });
    const form = el(
      "form",
      { role: "search", "aria-label": () => t("search.title") },
      el("div", { class: "query" }, icon("search"), this.#input),
      el("div", { class: "pair even" }, this.#room, this.#from),
    );
    const close = el(
      "button",
      { type: "button", class: "icon", "aria-label": () => t("dialog.close"), on: { click: () => this.#close() } },
      icon("x"),
    );
    this.#panel = el(
      "aside",
      { class: "panel extra search", "aria-label": () => t("search.button") },
      el("header", {}, el("h2", { text: () => t("search.button") }), close),
      el("div", { class: "body" }, form, this.#status, this.#hits, this.#more),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin();
    });
    this.#input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#begin(), AFTER_MS);
    });
    this.#panel.addEventListener("keydown", (event) => this.#key(event));
    this.#hits.addEventListener("click", ({ target }) => target.closest("a") && this.#followed());
    app.showPanel(this.#panel);
    this.#input.focus();
    this.#loadPeople();
    if (text) this.#begin();
  }

  async #loadPeople() {
    try {
      const { users } = await this.#app.api.users();
      this.#from.append(...users.map(({ username }) => el("option", { value: username, text: username })));
    } catch {
      // Then it is searched in what everybody said.
    }
  }

  #close() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#app.closePanel();
    if (this.#returnTo?.isConnected) this.#returnTo.focus();
    else document.querySelector("#search-button")?.focus();
  }

  /** Where the panel covers the conversation it makes way for it. */
  #followed() {
    if (this.#app.composer.box.offsetParent === null) this.#app.closePanel();
  }

  #key(event) {
    if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      return this.#close();
    }
    const forward = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (forward === undefined || event.target.matches("select")) return;
    const links = [...this.#hits.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement) + forward;
    event.preventDefault();
    (at < 0 ? this.#input : links[Math.min(at, links.length - 1)])?.focus();
  }

  /** What is searched for is another. */
  async #begin() {
    clearTimeout(this.#timer);
    const wanted = this.#wanted();
    const key = JSON.stringify(wanted);
    if (key === this.#asked) return;
    this.#asked = key;
    this.#query = wanted;
    this.#turn += 1;
    this.#before = null;
    this.#found = 0;
    this.#more.hidden = true;
    this.#hits.replaceChildren();
    if (wanted.q === "") this.#say(() => "");
    else await this.#goOn();
  }

  #wanted() {
    return { q: this.#input.value.trim(), room: this.#room.value || undefined, from: this.#from.value || undefined };
  }

  async #goOn() {
    const turn = this.#turn;
    const before = this.#found;
    this.#say(() => t("search.searching"));
    try {
      for (let step = 0; step < STEPS && this.#found === before; step += 1) {
        const answer = await this.#app.api.search({ ...this.#query, before: this.#before ?? undefined });
        if (turn !== this.#turn) return;
        this.#before = answer.before;
        this.#show(answer.messages);
        if (answer.before === null) break;
      }
      this.#more.hidden = this.#before === null;
      const isAll = this.#before === null;
      const n = this.#found;
      this.#say(() => (n === 0 && isAll ? t("search.nothing") : t("search.found", { n })));
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#asked = "";
      this.#say(() => (error?.code ? inWords(error) : t("error.other")));
    }
  }

  #say(write) {
    worded(this.#status, "text", write);
  }

  #show(messages) {
    for (const message of messages) {
      this.#found += 1;
      const room = this.#app.rooms.get(message.room);
      const name = () => this.#app.rooms.nameOf(room);
      if (this.#hits.lastElementChild?.dataset.room !== String(message.room)) {
        this.#hits.append(
          el(
            "section",
            { data: { room: message.room } },
            el("h3", { dir: "auto", text: name }),
            el("ul", { "aria-label": name }),
          ),
        );
      }
      this.#hits.lastElementChild.lastElementChild.append(el("li", {}, this.#hit(message)));
    }
  }

  #hit({ id, room, username, content, created_at: at }) {
    const time = new Date(at);
    return paint(
      el(
        "a",
        { class: "hit", href: `#/room/${room}/m/${id}` },
        avatar(username),
        el(
          "span",
          { class: "by" },
          el("b", {}, el("bdi", { text: username })),
          " ",
          el("time", { datetime: time.toISOString(), title: () => moment(time), text: () => stamp(time) }),
        ),
        el("span", { class: "said", dir: "auto" }, ...marked(plain(content), this.#query.q)),
      ),
      username,
    );
  }
}

/** The text from a little before what was found, with that marked wherever it is. */
function marked(content, wanted) {
  const lower = content.toLowerCase();
  const needle = wanted.toLowerCase();
  // In a few letters lower case is longer: then places are not the same, and nothing is marked.
  const first = needle !== "" && lower.length === content.length ? lower.indexOf(needle) : -1;
  if (first < 0) return [content.slice(0, 300)];
  const from = Math.max(0, first - LEAD);
  const text = content.slice(from, first + 300);
  const parts = [from > 0 ? "…" : ""];
  let at = 0;
  for (let next = text.toLowerCase().indexOf(needle); next >= 0; next = text.toLowerCase().indexOf(needle, at)) {
    parts.push(text.slice(at, next), el("mark", { text: text.slice(next, next + needle.length) }));
    at = next + needle.length;
  }
  return [...parts, text.slice(at)];
}
