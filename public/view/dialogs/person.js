// The card of a person: what can be done with them.

import { t } from "../../i18n/index.js";
import { avatar, el } from "../dom.js";
import { confirm, openDialog } from "./dialog.js";
import { alert, button, saying } from "./parts.js";

export function open(app, name) {
  const isSelf = name === app.username;
  const isHere = app.people.isHere(name);
  const trouble = alert();
  const row = el("div", { class: "row start" });
  const direct = async () => {
    dialog.close();
    await app.direct(name);
  };
  const mention = () => {
    dialog.close();
    app.composer.insert(`@${name} `);
  };
  row.append(
    button(isSelf ? t("rooms.notes") : t("person.message"), { kind: "primary", press: direct }),
    button(t("person.mention"), { press: mention }),
  );

  const ban = button(t("person.ban"), { kind: "danger", press: () => askToBan() });
  async function askToBan() {
    if (!(await confirm({ title: t("person.banTitle", { name }), text: t("person.banText"), yes: t("person.ban") })))
      return;
    if (await saying(trouble, () => app.api.ban(name, false))) showBanned();
  }
  function showBanned() {
    const lift = button(t("person.unban"), {
      press: async () => {
        if (!(await saying(trouble, () => app.api.unban(name)))) return;
        lift.replaceWith(ban);
        ban.focus();
        app.tell(t("person.unbanned", { name }));
      },
    });
    ban.replaceWith(lift);
    lift.focus();
    app.tell(t("person.banned", { name }));
  }
  if (app.isModerator && !isSelf) row.append(ban);

  const presence = isSelf ? t("people.you") : isHere ? t("person.here") : t("person.away");
  const dialog = openDialog(
    { title: name, class: "card" },
    avatar(name, isHere ? "here" : "gone"),
    el("p", { text: presence }),
    row,
    trouble.element,
  );
  row.firstElementChild.focus();
}
