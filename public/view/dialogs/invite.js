// The dialog "Invite people": a link, the same as a QR code, and the invitations that are open.
//
// The link is made when the dialog opens, and the same one is shown until it is used up or something else is chosen: opening and
// closing the dialog leaves no row of invitations behind.

import { inWords } from "../../api.js";
import { date, list as listInWords, t } from "../../i18n/index.js";
import { load } from "../../load.js";
import { copy, el } from "../dom.js";
import { openDialog } from "./dialog.js";
import { alert, button, saying, select } from "./parts.js";

const DAY_MS = 24 * 60 * 60 * 1000;
const USES = [1, 5, 20, 100];
const DAYS = [1, 7, 30];

/** What was made last, by session: `{ id, code, uses, days, until }`. */
const made = new WeakMap();

export async function open(app) {
  const trouble = alert();
  const link = el("output", { class: "link", dir: "ltr", "aria-label": t("invite.link") });
  const picture = el("div", { class: "qr", hidden: true });
  const controls = el("div", { class: "fields" });
  const share = el("div", { class: "share", "aria-busy": "true" }, picture, controls);
  const openOnes = el("div", { class: "fields" });
  const copyLink = button(t("message.copyLink"), { kind: "primary", sign: "copy", press: copyIt });
  const copied = el("span", { class: "unseen", role: "status" });
  let address = "";

  const before = made.get(app);
  const uses = select(
    t("invite.uses"),
    USES.map((n) => [String(n), t("invite.people", { n })]),
    String(before?.uses ?? 5),
    change,
  );
  const days = select(
    t("invite.until"),
    DAYS.map((n) => [String(n), date(Date.now() + n * DAY_MS)]),
    String(before?.days ?? 7),
    change,
  );
  const pair = el(
    "div",
    { class: "pair even" },
    el("label", {}, el("span", { text: t("invite.uses") }), uses),
    el("label", {}, el("span", { text: t("invite.until") }), days),
  );
  controls.append(el("div", { class: "linkbox" }, link, copyLink), pair, copied);
  if (navigator.share) {
    controls.append(
      button(t("invite.share"), {
        sign: "share",
        press: () => navigator.share({ title: app.about.name || "chinwag", url: address }).catch(() => {}),
      }),
    );
  }

  async function copyIt() {
    await copy(address);
    copied.textContent = t("message.copied");
    copyLink.lastElementChild.textContent = t("message.copied");
  }

  async function change() {
    const old = made.get(app);
    await saying(trouble, async () => {
      // First, so that the link that is shown is good whatever fails.
      await make();
      // What nobody has come by yet is replaced; what somebody has stays open.
      if (old) await app.api.endInvite(old.id).catch(() => {});
      await showOpen();
    });
  }

  async function make() {
    const wanted = { uses: Number(uses.value), days: Number(days.value) };
    const { id, code } = await app.api.createInvite({ uses: wanted.uses, expires_in: wanted.days * DAY_MS });
    made.set(app, { id, code, ...wanted });
    await show(new URL(`#invite=${encodeURIComponent(code)}`, location.href.split("#")[0]).href);
  }

  async function show(text) {
    address = text;
    link.textContent = text.replace(/^https?:\/\//, "");
    link.title = text;
    copyLink.lastElementChild.textContent = t("message.copyLink");
    try {
      const { qrCode } = await load("view/qr.js");
      const code = qrCode(text);
      code.setAttribute("role", "img");
      code.setAttribute("aria-label", t("invite.qr"));
      picture.replaceChildren(code);
      picture.hidden = false;
    } catch {
      picture.hidden = true;
    }
  }

  async function showOpen() {
    const { invites } = await app.api.invites();
    const now = Date.now();
    const others = invites
      .filter(({ left, expires_at, users }) => (left > 0 && expires_at > now) || users?.length > 0)
      .sort((a, b) => b.created_at - a.created_at);
    const mine = made.get(app);
    const rows = others
      .filter(({ id, users }) => id !== mine?.id || users?.length > 0)
      .map((invite) => row(invite, now));
    openOnes.replaceChildren(
      ...(rows.length > 0
        ? [
            el(
              "section",
              {},
              el("h3", { text: t("invite.open") }),
              el("ul", { class: "group", "aria-label": t("invite.open") }, ...rows),
            ),
          ]
        : []),
    );
    return invites;
  }

  function row({ id, uses, left, created_by, created_at, expires_at, users = [] }, now) {
    const isOpen = left > 0 && expires_at > now;
    const by =
      created_by === app.username
        ? t("invite.byYou", { when: date(created_at) })
        : t("invite.by", { name: created_by, when: date(created_at) });
    const came =
      users.length > 0
        ? t("invite.cameNames", { n: uses - left, uses, names: listInWords(users) })
        : t("invite.cameNobody", { n: uses });
    const end = button(t("invite.end"), {
      kind: "danger",
      name: t("invite.endName", { by }),
      press: async () => {
        if (!(await saying(trouble, () => app.api.endInvite(id)))) return;
        if (made.get(app)?.id === id) made.delete(app);
        await saying(trouble, showOpen);
        dialog.element.querySelector(".x").focus();
      },
    });
    const words = el(
      "span",
      { class: "words" },
      el("span", { dir: "auto", text: by }),
      el("small", {
        dir: "auto",
        text: `${came} ${isOpen ? t("invite.ends", { when: date(expires_at) }) : t("invite.over")}`,
      }),
    );
    return el("li", { class: "line" }, words, isOpen ? end : null);
  }

  const name = app.about.name && app.about.name !== "chinwag" ? app.about.name : null;
  const lead = el("p", { class: "lead", text: t("invite.lead") });
  const dialog = openDialog(
    { title: t("invite.button"), class: "form invite" },
    lead,
    share,
    trouble.element,
    openOnes,
  );
  if (name) lead.textContent = t("invite.leadNamed", { name });

  try {
    const invites = await showOpen();
    const still =
      before && invites.find(({ id, left, expires_at }) => id === before.id && left > 0 && expires_at > Date.now());
    if (still) await show(new URL(`#invite=${encodeURIComponent(before.code)}`, location.href.split("#")[0]).href);
    else await make();
  } catch (error) {
    await withoutInvitations(error);
  }
  share.removeAttribute("aria-busy");

  /** Where one may not invite, anybody may come by the address alone, or somebody else has to. */
  async function withoutInvitations(error) {
    pair.hidden = true;
    if (error.code === "forbidden" && app.about.registration === "open") {
      lead.textContent = t("invite.anybody");
      await show(location.href.split("#")[0]);
    } else {
      share.hidden = true;
      trouble.say(error.code === "forbidden" ? t("invite.forbidden") : error.code ? inWords(error) : t("error.other"));
    }
  }
}
