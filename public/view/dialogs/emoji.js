// The emoji picker, loaded when it is first wanted.
//
//   open(app, button, onPick)     `onPick(emoji)` once one is picked; Shift keeps the picker open

import { t } from "../../i18n/index.js";
import { Recent } from "../../store/recent.js";
import { el } from "../dom.js";
import { openDialog } from "./dialog.js";

const GROUPS = [
  [
    "faces",
    "😀 😃 😄 😁 😆 😅 🤣 😂 🙂 🙃 😉 😊 😇 🥰 😍 🤩 😘 😋 😛 😜 🤪 🤗 🤭 🤫 🤔 🤐 😐 😏 😒 🙄 😬 😌 😔 😴 🤒 🤕 🤢 🥳 😎 🤓 😕 😟 😮 😲 😳 🥺 😢 😭 😱 😤 😠 😡 🤯 😈 💀 💩 👻 👽 🤖",
  ],
  [
    "people",
    "👋 🤚 ✋ 👌 🤏 ✌️ 🤞 🤟 🤘 👈 👉 👆 👇 👍 👎 ✊ 👊 👏 🙌 🤝 🙏 💪 👀 🧠 👶 🧒 👩 👨 🧓 👵 👴 🤷 🤦 🙋 💃 🕺 🚶 🏃 👨‍👩‍👧 ❤️ 🧡 💛 💚 💙 💜 🖤 💔 💕 💯",
  ],
  [
    "nature",
    "🐶 🐱 🐭 🐰 🦊 🐻 🐼 🐨 🐯 🦁 🐮 🐷 🐸 🐵 🐔 🐧 🐦 🦉 🐝 🦋 🐌 🐞 🐢 🐙 🐬 🐳 🐟 🌵 🌲 🌳 🌴 🌱 🍀 🍁 🌹 🌻 🌷 🌍 🌙 ⭐ ☀️ ⛅ 🌧️ ⚡ ❄️ 🌈 🔥 💧",
  ],
  [
    "food",
    "🍏 🍊 🍋 🍌 🍉 🍇 🍓 🍒 🍑 🥭 🍍 🥑 🍅 🥕 🌽 🥔 🍞 🥐 🧀 🥚 🍳 🥞 🍔 🍟 🍕 🌮 🥗 🍝 🍜 🍣 🍚 🍲 🍦 🍰 🎂 🥧 🍫 🍪 🍿 ☕ 🍵 🥛 🍺 🍷 🥂",
  ],
  [
    "doing",
    "⚽ 🏀 🎾 🏐 🏓 🏸 ⛷️ 🏊 🚴 🏆 🎮 🎲 🧩 🎨 🎬 🎤 🎸 🎹 🥁 📚 ✏️ 💻 📱 📷 🔦 🔧 🔑 🏠 🏥 🏫 🏡 🚗 🚌 🚲 🚂 ✈️ 🚀 ⛵ 🏕️ 🏖️ ⛰️ 🎒 🎁 🎉 🎈 🎄",
  ],
  ["signs", "✅ ❌ ❓ ❗ ⚠️ 🚫 ➕ ➖ ➡️ ⬅️ ⬆️ ⬇️ 🔄 🔔 🔕 🔒 🔓 📌 📎 📅 ⏰ ⏳ 💡 💬 📣 ✨ 💤 🏁 🚩"],
];

export function open(app, button, onPick) {
  const all = GROUPS.map(([name, text]) => [name, text.split(" ")]);
  const recent = new Recent(new Set(all.flatMap(([, emojis]) => emojis)));
  const used = recent.all;
  const groups = [...(used.length > 0 ? [["recent", used]] : []), ...all];
  const content = el("div", { class: "emojis" }, ...groups.map(group));
  const buttons = [...content.querySelectorAll("button")];

  function group([name, emojis]) {
    const id = `emoji-${name}`;
    const items = emojis.map((emoji) =>
      el("button", {
        type: "button",
        tabindex: "-1",
        text: emoji,
        on: { click: (event) => pick(emoji, event.shiftKey) },
      }),
    );
    return el(
      "section",
      { "aria-labelledby": id },
      el("h3", { id, text: t(`emoji.${name}`) }),
      el("div", { class: "grid" }, ...items),
    );
  }

  function pick(emoji, stay) {
    recent.use(emoji);
    if (!stay) dialog.close();
    onPick(emoji);
  }

  /** One stop for Tab; arrows go from one to the next, and up and down by where they are. */
  function focus(to) {
    if (!to) return;
    for (const other of buttons) other.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  function vertical(from, direction) {
    const { left, top } = from.getBoundingClientRect();
    const places = buttons
      .map((other) => ({ other, place: other.getBoundingClientRect() }))
      .filter(({ place }) => direction * (place.top - top) > 1);
    const nearest = Math.min(...places.map(({ place }) => direction * place.top));
    const row = places.filter(({ place }) => Math.abs(direction * place.top - nearest) < 1);
    return row.sort((a, b) => Math.abs(a.place.left - left) - Math.abs(b.place.left - left))[0]?.other;
  }

  content.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    if (at < 0) return;
    const onwards = document.documentElement.dir === "rtl" ? -1 : 1;
    const to = {
      ArrowRight: () => buttons[at + onwards],
      ArrowLeft: () => buttons[at - onwards],
      ArrowDown: () => vertical(buttons[at], 1),
      ArrowUp: () => vertical(buttons[at], -1),
      Home: () => buttons[0],
      End: () => buttons.at(-1),
    }[event.key];
    if (!to) return;
    event.preventDefault();
    focus(to());
  });
  const dialog = openDialog({ title: t("composer.emoji"), class: "emoji" }, content);
  focus(buttons[0]);
}
