// A message's text, taken apart in one linear pass: addresses, mail addresses, telephone numbers, mentions, code. The parts
// joined are the text, whatever it is.
//
//   parse(text, mentions)       parts `{ kind, text, href? }`; kinds: "text", "link", "mention", "code", "pre", and "mark" for the
//                               backticks around code, which are in the text and not shown
//   unpiled(text)               without what is too much on one letter
//   plain(text)                 what is shown of it
//   isEmoji(text)               whether there is nothing but a few emoji
//   lines(text)                 how many lines it has, at least

/** A longer address is text. */
const ADDRESS_LENGTH = 2_048;
const MAIL_LENGTH = 254;
const EMOJI_LENGTH = 40;

/** Where something can begin. */
const BEGIN = /```|`|https?:\/\/|www\.|@|\+|(?<![\p{L}\p{N}])0/giu;
/** An address goes up to white space, quotes, brackets that close a quotation, or what could make it look like another. */
const ADDRESS = /[^\s<>"`\u00ab\u00bb\u2018\u201a-\u201f\u2039\u203a\u3008-\u3011\u3014-\u301f\uff08\uff09\uff3b\uff3d\uff5b\uff5d\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]*/y;
/** A host with its port: letters, digits, dots and dashes, or an IPv6 address in brackets. Anything else ends it. */
const AUTHORITY = /\[[\da-f:.]+\](?::\d+)?|[\p{L}\p{M}\p{N}\-._~]+(?::\d+)?/iuy;
/** A word behind the opening fence names a language. */
const FENCE_HEAD = /[^\S\n]{0,20}[\w+#.-]{0,20}[^\S\n]{0,20}\n|/y;
const CODE = /[^`\n]*/y;
const CLOSING = /[.,;:!?'*_~|\u2026\u2019\u3001\u3002\uff0c\uff0e\uff1a\uff1b\uff01\uff1f\u060c\u061b\u061f\u06d4\u0964\u0965]/;
const PAIRS = new Map([[")", "("], ["]", "["], ["}", "{"]]);
const MAIL_BEFORE = /[\p{L}\p{N}.!#$%&'*+/=?^_{|}~-]/u;
const MAIL_AFTER = /[a-z\d](?:[a-z\d-]{0,62}\.){1,8}[a-z]{2,24}(?![\p{L}\p{N}-])/iuy;
const NAME = /[A-Za-z0-9._-]{1,64}/y;
const WORD = /[\p{L}\p{N}./@]/u;
/** With its country, or with a leading 0; groups by spaces, dashes, slashes and brackets. */
const TELEPHONE = /(?:\+|0)[\d ()/-]{5,24}\d(?![\p{L}\p{N}:.,]?\d|[\p{L}])/uy;
const TELEPHONE_DIGITS = { least: 7, most: 15 };
/** More marks on a letter than any script has, and which a browser takes quadratic time to set. */
const PILE = /(\p{M}{16})\p{M}+/gu;

export function parse(text, mentions = []) {
  return new Parser(text, mentions).parts();
}

export const unpiled = (text) => text.replace(PILE, "$1");

export const plain = (text) =>
  unpiled(text.includes("`") ? parse(text).filter(({ kind }) => kind !== "mark").map(({ text }) => text).join("") : text);

class Parser {
  #text;
  #mentions;
  #parts = [];
  /** Up to here the text is in `#parts`. */
  #done = 0;
  /** Once none was found there is none further on: nothing is searched for twice. */
  #noFence = false;

  constructor(text, mentions) {
    this.#text = text;
    this.#mentions = new Set(mentions.map((name) => String(name).toLowerCase()));
  }

  parts() {
    BEGIN.lastIndex = 0;
    for (let found; (found = BEGIN.exec(this.#text)); ) {
      const searched = BEGIN.lastIndex;
      BEGIN.lastIndex = Math.max(this.#at(found.index, found[0].toLowerCase()), searched);
    }
    this.#push("text", this.#done, this.#text.length);
    return this.#parts;
  }

  /** Handles what begins at `at`; returns where to look on. */
  #at(at, what) {
    switch (what) {
      case "```":
        return this.#fence(at);
      case "`":
        return this.#code(at);
      case "@":
        return this.#mail(at) || this.#mention(at);
      case "+":
      case "0":
        return this.#telephone(at);
      default:
        return this.#address(at, what);
    }
  }

  #push(kind, from, to, href) {
    if (from >= to) return;
    this.#parts.push(href ? { kind, text: this.#text.slice(from, to), href } : { kind, text: this.#text.slice(from, to) });
    this.#done = to;
  }

  /** What lies before `from` is text, what lies up to `to` is this. */
  #take(kind, from, to, href) {
    this.#push("text", this.#done, from);
    this.#push(kind, from, to, href);
    return to;
  }

  #fence(at) {
    const close = this.#noFence ? -1 : this.#text.indexOf("```", at + 3);
    if (close === -1) {
      this.#noFence = true;
      return at + 3;
    }
    const head = match(FENCE_HEAD, this.#text, at + 3);
    const from = at + 3 + head.length;
    if (this.#text.slice(from, close).trim() === "") return close + 3;
    const to = this.#text[close - 1] === "\n" ? close - 1 : close;
    this.#take("mark", at, from);
    this.#take("pre", from, to);
    return this.#take("mark", to, close + 3);
  }

  #code(at) {
    const inside = match(CODE, this.#text, at + 1);
    const close = at + 1 + inside.length;
    if (inside.trim() === "" || this.#text[close] !== "`") return close;
    this.#take("mark", at, at + 1);
    this.#take("code", at + 1, close);
    return this.#take("mark", close, close + 1);
  }

  #address(at, what) {
    if (at > 0 && /\w/.test(this.#text[at - 1])) return at + what.length;
    const scheme = what === "www." ? "" : what;
    const whole = match(ADDRESS, this.#text, at);
    const end = at + whole.length;
    if (whole.length > ADDRESS_LENGTH) return end;
    const authority = match(AUTHORITY, whole, scheme.length);
    const afterAuthority = whole[scheme.length + authority.length];
    // A name or password before the host is there to deceive.
    if (authority === "" || afterAuthority === "@" || /^:[^/?#]*@/.test(whole.slice(scheme.length + authority.length))) return end;
    const isPath = afterAuthority === "/" || afterAuthority === "?" || afterAuthority === "#";
    const address = withoutClosing(isPath ? whole : whole.slice(0, scheme.length + authority.length));
    const shown = authority.slice(0, Math.max(0, address.length - scheme.length));
    const href = hrefOf(scheme ? address : `https://${address}`, shown);
    if (href === null || (!scheme && !/^www\.[^.]/i.test(address))) return at + Math.max(address.length, what.length);
    return this.#take("link", at, at + address.length, href);
  }

  #mail(at) {
    let from = at;
    while (from > this.#done && at - from < 64 && MAIL_BEFORE.test(this.#text[from - 1])) from -= 1;
    while (from < at && /[.'*_~{|}]/.test(this.#text[from])) from += 1;
    if (from === at || this.#text[at - 1] === ".") return 0;
    const host = match(MAIL_AFTER, this.#text, at + 1);
    const end = at + 1 + host.length;
    if (host === "" || end - from > MAIL_LENGTH) return 0;
    return this.#take("link", from, end, `mailto:${encodeURIComponent(this.#text.slice(from, at))}@${host}`);
  }

  #mention(at) {
    if (this.#mentions.size === 0 || (at > 0 && WORD.test(before(this.#text, at)))) return at + 1;
    let name = match(NAME, this.#text, at + 1);
    while (name !== "" && !this.#mentions.has(name.toLowerCase()) && /[._-]$/.test(name)) name = name.slice(0, -1);
    if (!this.#mentions.has(name.toLowerCase())) return at + 1;
    return this.#take("mention", at, at + 1 + name.length);
  }

  #telephone(at) {
    if (at > 0 && /[\p{L}\p{N}_/.,:+-]/u.test(before(this.#text, at))) return at + 1;
    const number = match(TELEPHONE, this.#text, at);
    const digits = number.replace(/\D/g, "");
    if (digits.length < TELEPHONE_DIGITS.least || digits.length > TELEPHONE_DIGITS.most) return at + 1;
    // A date is none.
    if (/^\d{2}[-/]\d{2}[-/]\d{2,4}$/.test(number)) return at + number.length;
    return this.#take("link", at, at + number.length, `tel:${number[0] === "+" ? "+" : ""}${digits}`);
  }
}

/** What a sticky pattern matches at `at`; "" if it does not. */
function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? "";
}

/** The character before `at`, whole. */
const before = (text, at) => (at > 1 && /[\udc00-\udfff]/.test(text[at - 1]) ? text.slice(at - 2, at) : text[at - 1]);

/** A sentence's full stop is not part of the address, nor is a bracket that was opened before it. */
function withoutClosing(address) {
  const surplus = new Map();
  for (const [close, open] of PAIRS) surplus.set(close, count(address, close) - count(address, open));
  let end = address.length;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    const unpaired = (surplus.get(last) ?? 0) > 0;
    if (!unpaired && !CLOSING.test(last)) break;
    if (unpaired) surplus.set(last, surplus.get(last) - 1);
  }
  return address.slice(0, end);
}

const count = (text, character) => text.split(character).length - 1;

/** The address to open, if the host that is opened is the one that is shown; else null. */
function hrefOf(address, shown) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  const plain = shown.toLowerCase();
  if (/^[\x20-\x7e]*$/.test(plain)) {
    const [host, port] = [url.hostname, url.port || (url.protocol === "https:" ? "443" : "80")];
    if (plain !== host && plain !== `${host}:${port}`) return null;
  } else if (plain.normalize("NFKC") !== plain.normalize("NFC")) {
    // Letters that stand for others, such as full-width ones.
    return null;
  }
  return url.href.length <= ADDRESS_LENGTH * 3 ? url.href : null;
}

const EMOJI = /^(?:\p{Extended_Pictographic}|\p{Regional_Indicator}|[\u200d\ufe0f\u20e3#*\d\s]|[\u{1f3fb}-\u{1f3ff}]|[\u{e0020}-\u{e007f}])+$/u;

export function isEmoji(text) {
  return text.length <= EMOJI_LENGTH && EMOJI.test(text) && /\p{Extended_Pictographic}|\p{Regional_Indicator}/u.test(text);
}

export function lines(text) {
  let count = 1;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) count += 1;
  return count;
}
