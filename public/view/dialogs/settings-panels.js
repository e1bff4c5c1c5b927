// What is behind the tabs of "Settings": each returns the elements of its panel.

import { LANGUAGES, clock, compare, date, stamp, t } from "../../i18n/index.js";
import { avatar, el, icon, passwordIn, revealPasswords, tile } from "../dom.js";
import { inWords } from "../../api.js";
import { busy, confirm, openDialog } from "./dialog.js";
import { alert, button, choices, field, group, line, reveal, saying, select, toggle } from "./parts.js";

const PASSWORD_LEAST = 8;
const MINUTES_A_DAY = 24 * 60;
const QUIET = [22 * 60, 7 * 60];

// You.

export function you(app) {
  const trouble = alert();
  const me = el(
    "div",
    { class: "line" },
    avatar(app.username, "here"),
    el(
      "span",
      { class: "words" },
      el("b", {}, el("bdi", { text: app.username })),
      app.isModerator ? el("small", { text: t("you.moderator") }) : null,
    ),
  );
  const export_ = button(t("you.save"), { press: () => saying(trouble, () => saveMessages(app)) });
  const remove = button(t("you.delete"), { kind: "danger", press: async () => deleteAccount(app) });
  return [
    group(null, me),
    passwordForm(app),
    group(t("you.messages"), line({ text: t("you.export"), hint: t("you.exportHint") }, export_)),
    trouble.element,
    ...(app.isModerator ? [liftBan(app)] : []),
    group(t("you.leaving"), line({ text: t("you.deleteLine"), hint: t("you.deleteHint") }, remove)),
  ];
}

/** Who is banned is in no list of people, so a moderator has to know the name. */
function liftBan(app) {
  const name = field({ label: t("login.username"), autocapitalize: "none", spellcheck: "false" });
  const done = el("p", { class: "hint", role: "status" });
  const lift = el("button", { class: "button compact", text: t("person.unban") });
  const form = el(
    "form",
    { class: "group fields padded", novalidate: true },
    name.element,
    done,
    el("div", { class: "row" }, lift),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = name.input.value.trim();
    if (wanted === "") return name.say(t("login.noName"));
    busy(lift, async () => {
      done.textContent = "";
      const lifted = await saying({ say: name.say }, () => app.api.unban(wanted));
      if (lifted) done.textContent = t("person.unbanned", { name: wanted });
    });
  });
  return el("section", {}, el("h4", { text: t("you.moderator") }), form);
}

async function saveMessages(app) {
  const address = URL.createObjectURL(await app.api.exportMessages());
  const link = el("a", { href: address, download: `chinwag-${app.username}.jsonl`, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  // The download has begun by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function passwordForm(app) {
  const current = field({ label: t("password.current"), type: "password", autocomplete: "current-password" });
  const fresh = field({
    label: t("password.new"),
    hint: t("login.passwordHint"),
    type: "password",
    autocomplete: "new-password",
  });
  const trouble = alert();
  const change = el("button", { class: "button compact primary", text: t("password.change") });
  const form = el(
    "form",
    { class: "group fields padded", novalidate: true },
    // A password manager wants to know whose password it is.
    el("input", {
      class: "unseen",
      type: "text",
      autocomplete: "username",
      value: app.username,
      tabindex: "-1",
      "aria-hidden": "true",
      readonly: true,
    }),
    current.element,
    fresh.element,
    trouble.element,
    // One for both fields: two buttons of one name would be told apart by their place only.
    el("div", { class: "row" }, reveal(t("password.show")), change),
  );
  revealPasswords(form);

  async function save() {
    trouble.say("");
    const [before, after] = [passwordIn(current.input), passwordIn(fresh.input)];
    if (before === "") return current.say(t("login.noPassword"));
    if ([...after].length < PASSWORD_LEAST) return fresh.say(t("error.invalid_password"));
    try {
      await app.api.changePassword(before, after);
      form.reset();
      app.tell(t("password.changed"));
      done.hidden = false;
    } catch (error) {
      if (error.code === "invalid_credentials") current.say(t("password.wrong"));
      else if (error.code === "invalid_password") fresh.say(inWords(error));
      else trouble.say(error.code ? inWords(error) : t("error.other"));
    }
  }
  const done = el("p", { class: "hint", role: "status", hidden: true, text: t("password.changed") });
  form.append(done);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    done.hidden = true;
    busy(change, save);
  });
  return el("section", {}, el("h4", { text: t("login.password") }), form);
}

function deleteAccount(app) {
  const password = field({ label: t("login.password"), type: "password", autocomplete: "current-password" });
  const trouble = alert();
  const withMessages = el("input", { type: "checkbox" });
  const yes = el("button", { class: "button compact danger", text: t("you.deleteYes") });
  const form = el(
    "form",
    { class: "fields", novalidate: true },
    el("p", { text: t("you.deleteText") }),
    el("label", { class: "check" }, withMessages, el("span", { text: t("you.deleteMessages") })),
    password.element,
    // In the field of so narrow a dialog it would cover the end of a long password.
    el("div", { class: "row" }, reveal(t("login.show"))),
    trouble.element,
    el(
      "div",
      { class: "row" },
      el("button", {
        type: "button",
        class: "button compact",
        text: t("dialog.cancel"),
        on: { click: () => dialog.close() },
      }),
      yes,
    ),
  );
  revealPasswords(form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (password.input.value === "") return password.say(t("login.noPassword"));
    busy(yes, async () => {
      trouble.say("");
      try {
        await app.api.deleteAccount(passwordIn(password.input), withMessages.checked);
        dialog.close();
        app.session.logOut();
      } catch (error) {
        if (error.code === "invalid_credentials") password.say(t("password.wrong"));
        else
          trouble.say(
            error.code === "forbidden" ? t("you.lastModerator") : error.code ? inWords(error) : t("error.other"),
          );
      }
    });
  });
  const dialog = openDialog({ title: t("you.deleteTitle"), class: "confirm", role: "alertdialog" }, form);
  password.input.focus();
}

// Notifications.

export function notifications(app) {
  const { prefs, notifier, rooms } = app;
  const isOn = (name) => prefs.get(name) === true;
  const here = toggle(
    t("notify.here"),
    app.about.push ? t("notify.hereHint") : t("notify.noPush"),
    notifier.isOn,
    async () => {
      await notifier.toggle();
      const why = document.querySelector("#chat-error span").textContent;
      trouble.say(notifier.isOn ? "" : why);
      return notifier.isOn;
    },
  );
  const trouble = alert();
  const list = rooms.all
    .map((room) => [rooms.nameOf(room), room])
    .sort(([a], [b]) => compare(a, b))
    .map(([name, room]) =>
      line(
        {
          text: name,
          face:
            room.kind === "direct" ? avatar(rooms.faceOf(room)) : tile(room.emoji || name.slice(0, 1).toUpperCase()),
        },
        roomSelect(app, room, name, trouble),
      ),
    );
  return [
    group(
      null,
      here,
      choices(
        t("notify.about"),
        null,
        [
          ["all", t("room.notifyAll")],
          ["mentions", t("room.notifyMentions")],
        ],
        prefs.get("about") ?? "all",
        (about) => prefs.set("about", about),
      ),
      toggle(t("notify.preview"), t("notify.previewHint"), prefs.get("preview") !== false, (on) =>
        prefs.set("preview", on),
      ),
      toggle(t("notify.sound"), null, isOn("sound"), (on) => prefs.set("sound", on)),
    ),
    trouble.element,
    quietHours(prefs),
    group(t("notify.byRoom"), ...list),
  ];
}

function roomSelect(app, room, name, trouble) {
  const options = [
    ["all", t("room.notifyAll")],
    ["mentions", t("room.notifyMentions")],
    ["nothing", t("room.notifyNothing")],
  ];
  return select(
    t("notify.aboutRoom", { name }),
    options,
    room.notify ?? app.prefs.get("about") ?? "all",
    async (what) => {
      if (await saying(trouble, () => app.api.notifyAbout(room.id, what))) app.rooms.setNotify(room.id, what);
    },
  );
}

function quietHours(prefs) {
  const quiet = () => prefs.get("quiet");
  const times = el(
    "div",
    { class: "line times", hidden: !quiet() },
    time(0, t("quiet.from")),
    time(1, t("quiet.until")),
  );
  function time(which, words) {
    const input = el("input", { type: "time", required: true });
    input.value = hoursOf((quiet() ?? QUIET)[which]);
    input.addEventListener("change", () => {
      const [hours, minutes] = input.value.split(":").map(Number);
      if (Number.isNaN(hours + minutes)) return;
      const chosen = [...(quiet() ?? QUIET)];
      chosen[which] = (60 * hours + minutes) % MINUTES_A_DAY;
      prefs.set("quiet", chosen);
    });
    return el("label", {}, el("span", { text: words }), input);
  }
  const on = toggle(t("quiet.title"), t("quiet.hint"), Boolean(quiet()), (isOn) => {
    prefs.set("quiet", isOn ? QUIET : null);
    times.hidden = !isOn;
  });
  return group(null, on, times);
}

const hoursOf = (minutes) =>
  `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;

// Looks.

export function looks({ prefs }) {
  const choose = (name) => (value) => prefs.set(name, value);
  const afternoon = new Date(2026, 0, 1, 14, 30);
  const time = (hourCycle) =>
    new Intl.DateTimeFormat(document.documentElement.lang, { hour: "numeric", minute: "2-digit", hourCycle }).format(
      afternoon,
    );
  const languages = select(
    t("looks.language"),
    [["", t("looks.asBrowser")], ...LANGUAGES],
    prefs.get("language") ?? "",
    (code) => prefs.set("language", code || null),
  );
  return [
    themes(prefs),
    group(
      t("looks.reading"),
      choices(
        t("looks.textSize"),
        t("looks.textSizeHint"),
        [
          ["small", "A−"],
          [null, "A"],
          ["large", "A+"],
          ["larger", "A++"],
        ],
        prefs.get("textSize"),
        choose("textSize"),
      ),
      choices(
        t("looks.clock"),
        null,
        [
          [null, t("looks.asLanguage")],
          ["24", time("h23")],
          ["12", time("h12")],
        ],
        prefs.get("clock"),
        choose("clock"),
      ),
      line({ text: t("looks.language") }, languages),
    ),
    group(t("looks.writing"), toggle(t("looks.enterSends"), t("looks.enterSendsHint"), prefs.enterSends, choose("enterSends"))),
  ];
}

function themes(prefs) {
  const picture = (name) => el("span", { class: `pic ${name}`, "aria-hidden": "true" }, el("i"), el("i"));
  const theme = (value, name, words) =>
    el(
      "label",
      {},
      el("input", {
        type: "radio",
        class: "unseen",
        name: "theme",
        value: name,
        checked: prefs.get("theme") === value,
        on: { change: () => prefs.set("theme", value) },
      }),
      picture(name),
      el("span", { text: words }),
    );
  return el(
    "fieldset",
    {},
    el("legend", { text: t("looks.theme") }),
    el(
      "div",
      { class: "group looks" },
      theme(null, "split", t("looks.asDevice")),
      theme("light", "light", t("looks.light")),
      theme("dark", "dark", t("looks.dark")),
    ),
  );
}

// Devices.

export function devices(app) {
  const list = el("div", { class: "group", role: "list", "aria-label": t("settings.devices"), "aria-busy": "true" });
  const trouble = alert();
  const others = button(t("devices.endOthers"), { kind: "danger", press: endOthers });
  others.hidden = true;

  async function endOthers() {
    if (
      !(await confirm({ title: t("devices.endOthersTitle"), text: t("devices.endText"), yes: t("devices.endOthers") }))
    )
      return;
    if (!(await saying(trouble, () => app.api.endOtherSessions()))) return;
    await load();
    if (others.hidden) focusPanel();
  }

  async function end({ id, client }, pressed) {
    if (
      !(await confirm({
        title: t("devices.endTitle", { name: client || t("devices.unknown") }),
        text: t("devices.endText"),
        yes: t("devices.end"),
      }))
    )
      return;
    if (!(await saying(trouble, () => app.api.endSession(id)))) return;
    await load();
    if (!pressed.isConnected) focusPanel();
  }

  /** The button that was pressed is gone. */
  const focusPanel = () => list.closest("[role=tabpanel]")?.focus();

  function device(session) {
    const { client, current, last_used_at, created_at } = session;
    const name = client || t("devices.unknown");
    const isPhone = /android|iphone|ipad|mobile/i.test(name);
    const words = el(
      "span",
      { class: "words" },
      el("span", { dir: "auto", text: name }),
      el("small", { text: t("devices.used", { when: when(last_used_at ?? created_at), since: date(created_at) }) }),
    );
    const act = current
      ? el("span", { class: "pill", text: t("devices.this") })
      : button(t("devices.end"), {
          kind: "danger",
          name: t("devices.endName", { name }),
          press: () => end(session, act),
        });
    return el(
      "div",
      { class: "line", role: "listitem" },
      el("span", { class: "tile" }, icon(isPhone ? "phone" : "laptop")),
      words,
      act,
    );
  }

  async function load() {
    await saying(trouble, async () => {
      const { sessions } = await app.api.sessions();
      sessions.sort((a, b) => b.current - a.current || b.last_used_at - a.last_used_at);
      list.replaceChildren(...sessions.map(device));
      others.hidden = sessions.length < 2;
    });
    list.removeAttribute("aria-busy");
  }

  load();
  return [
    el("p", { class: "lead", text: t("devices.lead") }),
    list,
    trouble.element,
    el("div", { class: "row start" }, others),
  ];
}

/** "14:30" alone could be any day's. */
const when = (time) => {
  const short = stamp(time);
  return short === clock(time) ? t("devices.today", { time: short }) : short;
};

// Help.

const KEYS = [
  ["help.find", ["Ctrl", "K"]],
  ["help.send", ["Enter"]],
  ["help.newLine", ["Shift", "Enter"]],
  ["help.editLast", ["↑"]],
  ["help.choose", ["↑", "↓"]],
  ["help.act", ["Enter"]],
  ["help.mention", ["@"]],
  ["help.close", ["Esc"]],
  ["help.help", ["?"]],
];

export function help(app) {
  const isMac = /mac|iphone|ipad/i.test(navigator.userAgentData?.platform ?? navigator.platform);
  const key = (name) => el("kbd", { text: name === "Ctrl" && isMac ? "⌘" : name });
  const row = ([words, keys]) =>
    el(
      "div",
      { class: "line" },
      el("dt", { class: "words", text: t(words) }),
      el("dd", { class: "keys" }, ...keys.map(key)),
    );
  const server = app.about.name || location.host;
  return [
    el("section", {}, el("h4", { text: t("help.keyboard") }), el("dl", { class: "group" }, ...KEYS.map(row))),
    el("section", {}, el("h4", { text: t("help.writing") }), el("p", { class: "group padded", text: t("help.code") })),
    el(
      "section",
      {},
      el("h4", { text: t("help.trust") }),
      el("p", { class: "group padded", text: t("help.server", { name: server }) }),
    ),
  ];
}
