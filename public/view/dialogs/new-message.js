// The dialog "New message": a conversation with one person.

import { t } from "../../i18n/index.js";
import { openDialog } from "./dialog.js";
import { peoplePicker } from "./people-picker.js";

export function open(app) {
  const picker = peoplePicker(app, {
    label: t("newMessage.to"),
    press: async (name) => {
      dialog.close();
      await app.direct(name);
    },
  });
  const dialog = openDialog({ title: t("rooms.newMessage"), class: "form" }, picker.element);
  picker.input.focus();
}
