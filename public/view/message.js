// One message as an `article`. `createMessage` makes it, `dressMessage` brings it up to date: whatever of a message can change
// once it is shown. What others write goes in as text.
//
//   createMessage(item, context)           `context`: `{ self, isMentioned(message), picture(image) }`
//   dressMessage(article, item, context)
//   place(article, { continues, closes })  whether it stands under one of the same person, and is the last of them
//   messageOf(article)                     what is shown

import { clock, list, moment, t } from "../i18n/index.js";
import { avatar, el, icon, paint } from "./dom.js";
import { isEmoji, lines, parse, plain, unpiled } from "./text.js";

/** A longer text is folded. */
const LINES = 20;
/** A text of fewer characters cannot have so many lines on any screen that is supported. */
const LINES_AT_LEAST = 400;
const RENDER = new WeakMap();

const textOf = (article) => article.querySelector(".text");
export const messageOf = (article) => RENDER.get(article);

export function createMessage(item, context) {
  const own = item.username === context.self;
  const article = el(
    "article",
    { class: own ? "own" : "", tabindex: "-1" },
    own ? null : avatar(item.username),
    el("header", {}, el("bdi", { class: "author", text: item.username }), " ", el("time")),
    el("div", { class: "bubble" }, el("div", { class: "text", dir: "auto" })),
    own ? el("footer", { class: "fate" }) : null,
  );
  paint(article, item.username);
  dressMessage(article, item, context);
  return article;
}

export function dressMessage(article, item, context) {
  const before = RENDER.get(article);
  if (before === item) return;
  RENDER.set(article, item);
  if (item.id !== undefined) article.dataset.id = item.id;
  if (item.nonce) article.dataset.nonce = item.nonce;
  if (item.state) article.dataset.state = item.state;
  else delete article.dataset.state;
  if (before?.created_at !== item.created_at) dressTime(article.querySelector("time"), item.created_at);
  if (before?.content !== item.content || before?.mentions !== item.mentions) dressText(article, item, context);
  if (before?.edited_at !== item.edited_at) dressEdited(article, item);
  if (before?.reply_to !== item.reply_to) dressQuote(article, item, context);
  if (before?.image !== item.image) dressPicture(article, item, context);
  if (before?.reactions !== item.reactions) dressReactions(article, item, context);
  if (article.classList.contains("own")) dressFate(article, item, context);
}

export function place(article, { continues, closes }) {
  article.classList.toggle("continued", continues);
  article.classList.toggle("closing", closes);
}

function dressTime(time, created_at) {
  const date = new Date(created_at);
  time.dateTime = date.toISOString();
  time.textContent = clock(date);
  time.title = moment(date);
}

function dressText(article, { content, mentions }, context) {
  const text = textOf(article);
  text.replaceChildren(...parse(unpiled(content), mentions).map((part) => partOf(part, context)));
  article.classList.toggle("loud", isEmoji(content));
  article.classList.toggle("mention", !article.classList.contains("own") && context.isMentioned({ mentions }));
  text.hidden = content === "";
  // Whether it is really too long is seen once it is laid out.
  const mayBeLong = content.length > LINES_AT_LEAST || lines(content) > LINES;
  text.classList.toggle("foldable", mayBeLong);
  if (!mayBeLong) article.querySelector(".unfold")?.remove();
}

function partOf({ kind, text, href }) {
  switch (kind) {
    case "link":
      return el("a", { href, target: "_blank", rel: "noopener noreferrer", text });
    case "mention":
      return el("span", { class: "tag", text });
    case "code":
      return el("code", { text });
    case "pre":
      return el(
        "span",
        { class: "pre" },
        el("code", { class: "block", text, tabindex: "0" }),
        el("button", { type: "button", class: "icon copy", "aria-label": t("message.copyCode") }, icon("copy")),
      );
    case "mark":
      return el("span", { class: "mark", text });
    default:
      return text;
  }
}

/** Gives those that are too long, of all that may be, a button. To be called once they are laid out: it measures. */
export function foldLong(articles) {
  const long = articles
    .map(textOf)
    .filter((text) => text.matches(".foldable:not(.unfolded)"))
    .map((text) => [text, text.scrollHeight > text.clientHeight + 4]);
  for (const [text, isLong] of long) {
    const button = text.parentElement.querySelector(".unfold");
    text.classList.toggle("folded", isLong);
    if (isLong && !button) text.after(el("button", { type: "button", class: "unfold", text: t("message.showAll") }));
    else if (!isLong) button?.remove();
  }
}

export function unfold(article) {
  const text = textOf(article);
  text.classList.add("unfolded");
  text.classList.remove("folded");
  article.querySelector(".unfold")?.remove();
}

function dressEdited(article, { edited_at: edited }) {
  article.querySelector(".edited")?.remove();
  if (edited) textOf(article).after(el("small", { class: "edited", title: moment(edited), text: t("message.edited") }));
}

function dressQuote(article, { reply_to: quoted }, context) {
  article.querySelector(".quote")?.remove();
  if (!quoted) return;
  const gone = quoted.content === undefined;
  const text = gone ? t("message.quoteGone") : plain(quoted.content) || t("message.picture");
  const quote = el(
    "button",
    { type: "button", class: "quote", data: { quoted: quoted.id }, disabled: gone },
    ...(gone ? [] : [el("b", { text: quoted.username }), " "]),
    el("span", { dir: "auto", text }),
  );
  quote.setAttribute("aria-label", gone ? text : t("message.quote", { name: quoted.username, text }));
  if (!gone) paint(quote, quoted.username);
  article.querySelector(".bubble").prepend(quote);
}

function dressPicture(article, { image }, context) {
  article.querySelector("figure")?.remove();
  if (!image) return;
  const { width, height } = image;
  const shape = Number(width) > 0 && Number(height) > 0 ? `${Number(width)} / ${Number(height)}` : "4 / 3";
  const picture = el("img", { alt: image.alt || t("message.pictureOf", { name: messageOf(article).username }), width, height });
  picture.style.aspectRatio = shape;
  textOf(article).before(el("figure", {}, picture));
  context.picture(image).then(
    (address) => (picture.src = address),
    () => picture.classList.add("broken"),
  );
}

function dressReactions(article, { reactions }, { self }) {
  const before = article.querySelector(".reactions");
  const focused = before?.contains(document.activeElement) ? document.activeElement.dataset.emoji : null;
  // The focus goes over to what takes the place of its button before that is gone.
  if (focused !== null) article.focus({ preventScroll: true });
  before?.remove();
  if (!Array.isArray(reactions) || reactions.length === 0) return;
  const buttons = reactions.map(({ emoji, count, mine, names }) =>
    el(
      "button",
      { type: "button", class: "reaction", data: { emoji }, "aria-pressed": String(mine === true), "aria-label": reactionInWords({ emoji, count, mine, names }, self) },
      el("span", { text: emoji }),
      String(count),
    ),
  );
  article.querySelector(".bubble").after(el("div", { class: "reactions" }, ...buttons));
  if (focused !== null) buttons.find(({ dataset }) => dataset.emoji === focused)?.focus({ preventScroll: true });
}

/** "👍 2, you and Ada" */
function reactionInWords({ emoji, count, mine, names = [] }, self) {
  const others = names.filter((name) => name !== self);
  const told = [...(mine ? [t("people.you")] : []), ...others];
  const untold = count - told.length;
  if (untold > 0) told.push(t("message.moreReactions", { n: untold }));
  return t("message.reaction", { emoji, n: count, names: list(told) });
}

/** Of one's own message: when it was sent and that it is stored, or what keeps it from being. */
function dressFate(article, item, { online }) {
  const fate = article.querySelector(".fate");
  const time = el("time", { datetime: new Date(item.created_at).toISOString(), text: clock(item.created_at) });
  if (item.state === "failed") {
    const words = el("span", { text: t("message.notSent", { reason: refusal(item.reason ?? {}) }) });
    const button = (name, key) => el("button", { type: "button", class: `button compact ${name}`, text: t(key) });
    fate.replaceChildren(words, button("retry", "message.retry"), button("discard", "message.discard"));
  } else if (item.state === "pending") {
    fate.replaceChildren(time, el("span", { text: t(online() ? "message.sending" : "message.waiting") }));
  } else {
    fate.replaceChildren(time, el("span", { class: "tick", role: "img", "aria-label": t("message.stored") }));
  }
}

/** The connection came or went: what waits says so in other words. */
export function redressFate(article, context) {
  if (article.dataset.state === "pending") dressFate(article, messageOf(article), context);
}

/** Why a message failed, for a person. */
export function refusal({ code, message }) {
  switch (code) {
    case "unavailable":
    case "stale":
    case "archived":
    case "no_space":
    case "gone":
      return t(`refusal.${code}`);
    case "not_found":
    case "forbidden":
      return t("refusal.not_found");
    case "invalid_message":
      return message || t("refusal.invalid_message");
    default:
      return message || t("refusal.other");
  }
}
