// Finds people by the beginning of their names: a field, and below it a list of buttons, one a person.
//
//   peoplePicker(app, { label, without, press, chosen })
//     `without(name)`   whether somebody is left out        `press(name, button)`   somebody is picked
//     `chosen(name)`    given, the buttons are toggles      → { element, input, refresh() }

import { inWords } from "../../api.js";
import { t } from "../../i18n/index.js";
import { avatar, el, icon } from "../dom.js";
import { alert, field } from "./parts.js";

const AFTER_MS = 150;
/** Who is further down is found by typing more of the name. */
const SHOWN = 30;

export function peoplePicker(app, { label, without = () => false, press, chosen = null }) {
  const { element: box, input } = field({ label, autocapitalize: "none", spellcheck: "false" });
  const list = el("ul", { class: "picks", "aria-label": t("pick.people") });
  const nobody = el("p", { class: "hint", role: "status" });
  const trouble = alert();
  let turn = 0;
  let timer = null;

  const item = ({ username, online }) => {
    const isOn = chosen?.(username);
    const button = el(
      "button",
      {
        type: "button",
        class: "person",
        data: { name: username },
        "aria-pressed": chosen ? String(isOn) : null,
        on: { click: () => picked(username, button) },
      },
      avatar(username, online ? "here" : "gone"),
      el("bdi", { text: username }),
      chosen ? el("span", { class: "tick" }, icon("check")) : null,
    );
    return el("li", {}, button);
  };

  const picked = async (name, button) => {
    await press(name, button);
    if (chosen) button.setAttribute("aria-pressed", String(chosen(name)));
  };

  async function refresh() {
    const mine = (turn += 1);
    try {
      const { users } = await app.api.users(input.value.trim() || undefined);
      if (mine !== turn) return;
      const people = users.filter(({ username, bot }) => !bot && !without(username)).slice(0, SHOWN);
      list.replaceChildren(...people.map(item));
      nobody.textContent = people.length === 0 ? t("pick.nobody") : "";
      trouble.say("");
    } catch (error) {
      if (mine === turn) trouble.say(inWords(error));
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, AFTER_MS);
  });
  // Enter takes the only one there is, and sends no form.
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    const buttons = list.querySelectorAll("button");
    const exact = [...buttons].find(({ dataset }) => dataset.name.toLowerCase() === input.value.trim().toLowerCase());
    (exact ?? (buttons.length === 1 ? buttons[0] : null))?.click();
  });
  refresh();
  return { element: el("div", { class: "picker" }, box, list, nobody, trouble.element), input, refresh };
}
