// The dialog "New room".

import { inWords } from "../../api.js";
import { t } from "../../i18n/index.js";
import { el } from "../dom.js";
import { busy, openDialog } from "./dialog.js";
import { peoplePicker } from "./people-picker.js";
import { alert, choices, field, group } from "./parts.js";

const NAME_LENGTH = 60;
const TOPIC_LENGTH = 250;
const EMOJI_LENGTH = 16;

export function open(app) {
  const members = new Set();
  let kind = "open";
  const name = field({ label: t("room.name"), maxlength: NAME_LENGTH, required: true });
  const emoji = field({ label: t("room.emoji"), maxlength: EMOJI_LENGTH });
  const topic = field({ label: t("room.topic"), maxlength: TOPIC_LENGTH });
  const trouble = alert();
  const picker = peoplePicker(app, {
    label: t("room.whoIsIn"),
    without: (person) => person === app.username,
    chosen: (person) => members.has(person),
    press: (person) => (members.has(person) ? members.delete(person) : members.add(person)),
  });
  picker.element.hidden = true;
  const make = el("button", { class: "button primary", text: t("newRoom.make") });
  const form = el(
    "form",
    { novalidate: true, class: "fields" },
    name.element,
    el("div", { class: "pair" }, emoji.element, topic.element),
    group(
      null,
      choices(
        t("newRoom.who"),
        null,
        [
          ["open", t("newRoom.everybody")],
          ["private", t("newRoom.invited")],
        ],
        kind,
        (chosen) => {
          kind = chosen;
          picker.element.hidden = kind !== "private";
        },
      ),
    ),
    picker.element,
    trouble.element,
    el("div", { class: "row" }, make),
  );

  async function create() {
    trouble.say("");
    const wanted = {
      name: name.input.value.trim(),
      kind,
      emoji: emoji.input.value.trim() || undefined,
      topic: topic.input.value.trim() || undefined,
    };
    if (wanted.name === "") return name.say(t("room.noName"));
    if (kind === "private") wanted.members = [...members];
    try {
      const room = await app.api.createRoom(wanted);
      app.rooms.take(room);
      dialog.close();
      app.go(room.id);
    } catch (error) {
      if (error.code === "name_taken") name.say(inWords(error));
      else
        trouble.say(
          error.code === "forbidden" ? t("newRoom.forbidden") : error.code ? inWords(error) : t("error.other"),
        );
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busy(make, create);
  });
  const dialog = openDialog({ title: t("rooms.new"), class: "form" }, form);
  name.input.focus();
}
