// What the contract calls valid: names, texts, mentions, pictures; and the table of refusals. No state in here.

const STATUS = {
  invalid_json: 400, invalid_request: 400, invalid_username: 422, invalid_password: 422, username_taken: 409,
  registration_closed: 403, invalid_invite: 403, invalid_credentials: 401, unauthorized: 401, forbidden_origin: 403,
  not_found: 404, method_not_allowed: 405, payload_too_large: 413, unsupported_media_type: 415, rate_limited: 429,
  unavailable: 503, forbidden: 403, name_taken: 409, archived: 409, too_old: 409, gone: 410, no_space: 507,
  invalid_message: 422,
};

/** An answer other than the one hoped for; `wait` in milliseconds where the code asks for it. */
export class Refusal extends Error {
  constructor(code, message = code.replaceAll("_", " "), { status = STATUS[code], wait, headers } = {}) {
    super(message);
    Object.assign(this, { code, status, wait, headers });
  }
}

export const REACTIONS = ["👍", "❤️", "😂", "😮", "😢", "🎉", "🙏", "👀"];
export const LIMITS = {
  content: 4_000, nonce: 64, page: 200, search: 100, search_default: 20, rooms_members: 200, mentions: 16, quote: 140,
  replay: 1_000, unread: 1_000, image_bytes: 512 * 1024, image_side: 4_096, room_name: 60, topic: 250, emoji: 16,
  alt: 1_000, edit_ms: 24 * 3_600_000, nonce_ms: 24 * 3_600_000, image_ms: 3_600_000, directs_an_hour: 20,
  users_listed: 200, count_above: 1_000, names_below: 900,
};

/** Unicode simple folding, near enough: one code point for one. */
export function fold(text) {
  let folded = "";
  for (const char of text) {
    const upper = char.toUpperCase();
    const lower = ([...upper].length === 1 ? upper : char).toLowerCase();
    folded += [...lower].length === 1 ? lower : char;
  }
  return folded;
}

export const characters = (text) => [...text].length;
export const trim = (text) => text.replace(/^\p{White_Space}+|\p{White_Space}+$/gu, "");
const isText = (value) => typeof value === "string" && value.isWellFormed();
export const isId = (value) => Number.isSafeInteger(value) && value >= 0;

export function username(value) {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/.test(value) || value.toLowerCase() === "all") {
    throw new Refusal("invalid_username");
  }
  return value;
}

export function password(value) {
  if (characters(value) < 8 || characters(value) > 256) throw new Refusal("invalid_password");
  return value;
}

export function content(value, { mayBeEmpty = false } = {}) {
  if (!isText(value)) {
    if (value === undefined && mayBeEmpty) return "";
    throw new Refusal("invalid_message", "a message has a content");
  }
  const text = trim(value);
  const length = characters(text);
  if ((length === 0 && !mayBeEmpty) || length > LIMITS.content || /[^\P{Cc}\n\t]/u.test(text)) {
    throw new Refusal("invalid_message", "1 to 4,000 characters, no control characters");
  }
  return text;
}

export function nonce(value) {
  if (value === undefined || value === null) return undefined;
  if (!isText(value) || characters(value) < 1 || characters(value) > LIMITS.nonce) {
    throw new Refusal("invalid_message", "a nonce has 1 to 64 characters");
  }
  return value;
}

export function id(value, name, code = "invalid_message") {
  if (!isId(value)) throw new Refusal(code, `${name} is an id`);
  return value;
}

/** A text field of a room, trimmed; `least` and `most` characters, none of them a control character. */
export function label(value, name, least, most) {
  const text = isText(value) ? trim(value) : null;
  if (text === null || characters(text) < least || characters(text) > most || /\p{Cc}/u.test(text)) {
    throw new Refusal("invalid_request", `${name}: ${least} to ${most} characters`);
  }
  return text;
}

/**
 * The names that `text` mentions, as `find` spells them: `find(word)` is a name or undefined. A `.`, `_` or `-` at the end
 * of what follows the `@` is cut off one by one until somebody has that name.
 */
export function mentions(text, find) {
  const found = new Set();
  for (const [, word] of text.matchAll(/(?<![\p{L}\p{N}./@])@([\p{L}\p{N}._-]+)/gu)) {
    for (let name = word; name !== ""; name = name.slice(0, -1)) {
      const known = find(name);
      if (known !== undefined) found.add(known);
      if (known !== undefined || !/[._-]$/.test(name)) break;
    }
    if (found.size === LIMITS.mentions) break;
  }
  return [...found];
}

/** The picture that `bytes` are, by their own first bytes, without its metadata. */
export function picture(bytes) {
  const kind = SIGNATURES.find(({ is }) => is(bytes));
  if (!kind) throw new Refusal("unsupported_media_type", "PNG, JPEG, WebP or GIF");
  if (bytes.length > LIMITS.image_bytes) throw new Refusal("payload_too_large", "at most 512 KiB");
  let read;
  try {
    read = kind.read(bytes);
  } catch (cause) {
    if (cause instanceof Refusal) throw cause;
    throw new Refusal("unsupported_media_type", "not a whole picture");
  }
  if (!read || read.width < 1 || read.height < 1) throw new Refusal("unsupported_media_type", "not a whole picture");
  if (read.width > LIMITS.image_side || read.height > LIMITS.image_side) {
    throw new Refusal("payload_too_large", "at most 4,096 pixels a side");
  }
  return { type: kind.type, ...read };
}

const ascii = (bytes, from, to) => bytes.toString("latin1", from, to);
const SIGNATURES = [
  { type: "image/png", is: (b) => ascii(b, 0, 8) === "\x89PNG\r\n\x1a\n", read: readPng },
  { type: "image/jpeg", is: (b) => b[0] === 0xff && b[1] === 0xd8 && b[2] === 0xff, read: readJpeg },
  { type: "image/gif", is: (b) => /^GIF8[79]a/.test(ascii(b, 0, 6)), read: readGif },
  { type: "image/webp", is: (b) => ascii(b, 0, 4) === "RIFF" && ascii(b, 8, 12) === "WEBP", read: readWebp },
];

function readPng(bytes) {
  const kept = [bytes.subarray(0, 8)];
  for (let at = 8; at < bytes.length;) {
    const end = at + 12 + bytes.readUInt32BE(at);
    const type = ascii(bytes, at + 4, at + 8);
    if (end > bytes.length) return null;
    if (!["tEXt", "zTXt", "iTXt", "eXIf", "tIME"].includes(type)) kept.push(bytes.subarray(at, end));
    at = type === "IEND" ? bytes.length : end;
  }
  return { width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20), bytes: Buffer.concat(kept) };
}

function readJpeg(bytes) {
  const kept = [bytes.subarray(0, 2)];
  let size = null;
  for (let at = 2; ;) {
    if (bytes[at] !== 0xff) return null;
    const marker = bytes[at + 1];
    const end = at + 2 + bytes.readUInt16BE(at + 2);
    if (end > bytes.length) return null;
    const segment = bytes.subarray(at, end);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      size = { height: segment.readUInt16BE(5), width: segment.readUInt16BE(7) };
    }
    if (marker === 0xda) {
      kept.push(bytes.subarray(at));
      return size && { ...size, bytes: Buffer.concat(kept) };
    }
    if (marker === 0xe1) {
      const turned = orientation(segment);
      if (turned > 1) kept.push(exifOfOrientation(turned));
    } else if (marker !== 0xed && marker !== 0xfe) kept.push(segment);
    at = end;
  }
}

/** The orientation in an EXIF segment, 1 if there is none. */
function orientation(segment) {
  try {
    if (ascii(segment, 4, 10) !== "Exif\0\0") return 1;
    const tiff = segment.subarray(10);
    const little = ascii(tiff, 0, 2) === "II";
    const u16 = (at) => (little ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
    const first = little ? tiff.readUInt32LE(4) : tiff.readUInt32BE(4);
    for (let entry = first + 2, left = u16(first); left > 0; entry += 12, left--) {
      if (u16(entry) === 0x0112) return Math.min(u16(entry + 8), 8);
    }
  } catch {
    // A damaged table says nothing.
  }
  return 1;
}

function exifOfOrientation(value) {
  const exif = Buffer.from("ffe100224578696600004d4d002a00000008000101120003000000010000000000000000", "hex");
  exif.writeUInt16BE(value, 28);
  return exif;
}

function readGif(bytes) {
  if (bytes.length < 13) return null;
  return { width: bytes.readUInt16LE(6), height: bytes.readUInt16LE(8), bytes };
}

function readWebp(bytes) {
  const kept = [];
  let size = null;
  for (let at = 12; at + 8 <= bytes.length;) {
    const type = ascii(bytes, at, at + 4);
    const length = bytes.readUInt32LE(at + 4);
    const end = at + 8 + length + (length & 1);
    if (at + 8 + length > bytes.length) return null;
    const chunk = Buffer.from(bytes.subarray(at, end));
    if (type === "VP8X") {
      size = { width: 1 + chunk.readUIntLE(12, 3), height: 1 + chunk.readUIntLE(15, 3) };
      chunk[8] &= ~0x0c; // no EXIF, no XMP any more
    } else if (type === "VP8 ") {
      size ??= { width: chunk.readUInt16LE(14) & 0x3fff, height: chunk.readUInt16LE(16) & 0x3fff };
    } else if (type === "VP8L") {
      const bits = chunk.readUInt32LE(9);
      size ??= { width: 1 + (bits & 0x3fff), height: 1 + ((bits >> 14) & 0x3fff) };
    }
    if (type !== "EXIF" && type !== "XMP ") kept.push(chunk);
    at = end;
  }
  const body = Buffer.concat(kept);
  const header = Buffer.from("RIFF....WEBP");
  header.writeUInt32LE(4 + body.length, 4);
  return size && { ...size, bytes: Buffer.concat([header, body]) };
}
