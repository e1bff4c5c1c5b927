// The dialog of a room: its topic, who is in it, what one is told of, and leaving or archiving it.

import { t } from "../../i18n/index.js";
import { avatar, el } from "../dom.js";
import { busy, confirm, openDialog } from "./dialog.js";
import { peoplePicker } from "./people-picker.js";
import { alert, button, choices, field, group, saying } from "./parts.js";
import { LOBBY } from "../../store/rooms.js";

const NAME_LENGTH = 60;
const TOPIC_LENGTH = 250;
const EMOJI_LENGTH = 16;

export function open(app, { id }) {
  const trouble = alert();
  const content = el("div", { class: "fields" });
  const room = () => app.rooms.get(id);
  const mayChange = () => room().kind === "private" || (room().kind === "open" && app.isModerator);
  const known = () => room() !== undefined;
  if (!known()) return;

  const parts = [facts, members, notifications, ends].map((part) => part()).filter(Boolean);
  content.append(...parts, trouble.element);
  const dialog = openDialog({ title: app.rooms.nameOf(room()), class: "form room-dialog" }, content);
  const follow = () => (known() ? dialog.element.dispatchEvent(new Event("refresh")) : dialog.close());
  app.rooms.addEventListener("change", follow);
  dialog.closed.then(() => app.rooms.removeEventListener("change", follow));

  function facts() {
    const { topic, emoji, archived } = room();
    if (!mayChange()) return topic ? el("p", { class: "lead", dir: "auto", text: topic }) : null;
    const inputs = {
      name: field({ label: t("room.name"), maxlength: NAME_LENGTH, value: room().name ?? app.rooms.nameOf(room()) }),
      emoji: field({ label: t("room.emoji"), maxlength: EMOJI_LENGTH, value: emoji ?? "" }),
      topic: field({ label: t("room.topic"), maxlength: TOPIC_LENGTH, value: topic }),
    };
    const before = Object.fromEntries(Object.entries(inputs).map(([name, { input }]) => [name, input.value]));
    const save = el("button", { class: "button compact primary", text: t("room.save") });
    async function saveFacts() {
      const changed = Object.entries(inputs).filter(([name, { input }]) => input.value.trim() !== before[name]);
      if (changed.some(([name, { input }]) => name === "name" && input.value.trim() === ""))
        return inputs.name.say(t("room.noName"));
      if (changed.length > 0)
        app.rooms.take(
          await app.api.changeRoom(
            id,
            Object.fromEntries(changed.map(([name, { input }]) => [name, input.value.trim()])),
          ),
        );
      dialog.close();
    }
    if (archived) return topic ? el("p", { class: "lead", dir: "auto", text: topic }) : null;
    const form = el(
      "form",
      { class: "fields", novalidate: true },
      inputs.name.element,
      el("div", { class: "pair" }, inputs.emoji.element, inputs.topic.element),
      el("div", { class: "row" }, save),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      busy(save, () => saying(trouble, saveFacts));
    });
    return form;
  }

  function members() {
    if (room().kind !== "private") return null;
    const list = el("ul", { class: "picks", "aria-label": t("room.members") });
    const show = () => list.replaceChildren(...(room()?.members ?? []).map(member));
    const picker = peoplePicker(app, {
      label: t("room.add"),
      without: (name) => room()?.members?.includes(name),
      press: async (name) => {
        const added = await saying(trouble, () => app.api.addMember(id, name));
        if (!added) return;
        picker.input.value = "";
        picker.input.focus();
      },
    });
    function member(name) {
      const remove = button(t("room.remove"), {
        kind: "plain",
        name: t("room.removeName", { name }),
        press: () => saying(trouble, () => app.api.removeMember(id, name)),
      });
      const self = name === app.username ? el("small", { text: t("people.you") }) : remove;
      return el("li", { class: "person" }, avatar(name), el("bdi", { text: name }), self);
    }
    let shown = "";
    queueMicrotask(() =>
      dialog.element.addEventListener("refresh", () => {
        const now = JSON.stringify(room().members);
        if (now === shown) return;
        shown = now;
        const had = list.contains(document.activeElement);
        show();
        if (had) picker.input.focus();
        picker.refresh();
      }),
    );
    show();
    shown = JSON.stringify(room().members);
    return el("section", {}, el("h3", { text: t("room.members") }), list, picker.element);
  }

  function notifications() {
    const set = async (what) => {
      if (await saying(trouble, () => app.api.notifyAbout(id, what))) app.rooms.setNotify(id, what);
    };
    const options = [
      ["all", t("room.notifyAll")],
      ["mentions", t("room.notifyMentions")],
      ["nothing", t("room.notifyNothing")],
    ];
    return group(
      t("settings.notifications"),
      choices(t("room.notify"), null, options, room().notify ?? app.prefs.get("about") ?? "all", set),
    );
  }

  function ends() {
    const { kind, archived } = room();
    const row = el("div", { class: "row start" });
    if (kind === "private") row.append(button(t("room.leave"), { kind: "danger", sign: "out", press: leave }));
    if (mayChange() && id !== LOBBY)
      row.append(button(archived ? t("room.unarchive") : t("room.archive"), { sign: "archive", press: archive }));
    return row.childElementCount > 0 ? row : null;
  }

  async function leave() {
    if (
      !(await confirm({
        title: t("room.leaveTitle", { name: app.rooms.nameOf(room()) }),
        text: t("room.leaveText"),
        yes: t("room.leave"),
      }))
    )
      return;
    if (await saying(trouble, () => app.api.removeMember(id, app.username))) dialog.close();
  }

  async function archive() {
    const archived = !room().archived;
    if (
      archived &&
      !(await confirm({
        title: t("room.archiveTitle"),
        text: t("room.archiveText"),
        yes: t("room.archive"),
        danger: false,
      }))
    )
      return;
    const done = await saying(trouble, async () => app.rooms.take(await app.api.changeRoom(id, { archived })));
    if (done) dialog.close();
  }
}
