// REST calls, all routes of the protocol. Whatever goes wrong, the caller gets one kind of error, `ApiError`, with a `code` to
// act on; `inWords` turns that into a sentence for a person. No DOM, no state. All addresses are relative to where this file is,
// so that the page works under a path.
//
//   about(), register(name, password, invite), login(name, password), health()      without a session
//   new Api(token, onUnauthorized)                                                  everything else; see the class

import { t } from "./i18n/index.js";

/** How long an answer may take before the server counts as out of reach. */
const ANSWER_TIMEOUT_MS = 15_000;
/** A picture on a slow line takes longer. */
const UPLOAD_TIMEOUT_MS = 120_000;

const BASE = new URL("./", import.meta.url);

export class ApiError extends Error {
  /**
   * The protocol's code; or `redirected`: something in front of the server wants a login of its own; or `unreachable`: no answer,
   * or one that is not the server's.
   */
  code;
  /** Seconds to wait, when the server said. */
  retryAfter;

  constructor(code, message, retryAfter = null) {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The WebSocket's address. */
export const socketUrl = () => new URL("ws", BASE.href.replace(/^http/, "ws"));

/** What the server is and offers; a server of the first edition has no such route, and its answer is empty. */
export async function about() {
  try {
    return await request("GET", "about");
  } catch (error) {
    if (error.code === "not_found") return {};
    throw error;
  }
}

export const register = (username, password, invite) =>
  request("POST", "register", { body: invite ? { username, password, invite } : { username, password } });

export const login = (username, password) => request("POST", "login", { body: { username, password } });

/** `keepalive` lets the request outlive a page that is being closed. */
export const logout = (token) => request("POST", "logout", { token, keepalive: true });

export const health = () => request("GET", "healthz");

export class Api {
  #token;
  #onUnauthorized;

  constructor(token, onUnauthorized = () => {}) {
    this.#token = token;
    this.#onUnauthorized = onUnauthorized;
  }

  rooms = () => this.#ask("GET", "rooms");
  /** `{ name, kind, emoji, topic, members }` */
  createRoom = (room) => this.#ask("POST", "rooms", room);
  openDirect = (username) => this.#ask("POST", "direct", { username });
  changeRoom = (id, changes) => this.#ask("PATCH", `rooms/${id}`, changes);
  addMember = (id, name) => this.#ask("PUT", `rooms/${id}/members/${encodeURIComponent(name)}`);
  removeMember = (id, name) => this.#ask("DELETE", `rooms/${id}/members/${encodeURIComponent(name)}`);
  /** `what`: `"all"`, `"mentions"` or `"nothing"` */
  notifyAbout = (id, what) => this.#ask("PUT", `rooms/${id}/notify`, { what });

  /** A page of a room's history; `range` is `{ limit }` with `before`, `after` or `around`, or none for the newest. */
  messages = (room, range) => this.#ask("GET", `messages?${query({ room, ...range })}`);
  /** `{ q, room, from, before, limit }` */
  search = (what) => this.#ask("GET", `search?${query(what)}`);
  users = (prefix) => this.#ask("GET", `users?${query({ prefix })}`);

  changePassword = (password, new_password) => this.#ask("POST", "password", { password, new_password });
  sessions = () => this.#ask("GET", "sessions");
  endSession = (id) => this.#ask("DELETE", `sessions/${id}`);
  endOtherSessions = () => this.#ask("DELETE", "sessions");
  deleteAccount = (password, messages) => this.#ask("DELETE", "account", { password, messages });
  /** JSON Lines, as a Blob. */
  exportMessages = () => this.#ask("GET", "export", undefined, { as: "blob", timeout: UPLOAD_TIMEOUT_MS });

  /** `{ uses, expires_in }`, the latter in milliseconds */
  createInvite = (invite) => this.#ask("POST", "invites", invite);
  invites = () => this.#ask("GET", "invites");
  endInvite = (id) => this.#ask("DELETE", `invites/${id}`);
  ban = (name, messages) => this.#ask("POST", `users/${encodeURIComponent(name)}/ban`, { messages });
  unban = (name) => this.#ask("POST", `users/${encodeURIComponent(name)}/unban`);

  uploadImage = (blob) => this.#ask("POST", "images", blob, { timeout: UPLOAD_TIMEOUT_MS });
  /** A Blob: an `<img>` cannot send the session along. */
  image = (id) => this.#ask("GET", `images/${id}`, undefined, { as: "blob", cache: "default" });

  pushKey = () => this.#ask("GET", "push");
  subscribePush = (subscription) => this.#ask("PUT", "push", subscription);
  unsubscribePush = (endpoint) => this.#ask("DELETE", "push", { endpoint });

  async #ask(method, path, body, options) {
    try {
      return await request(method, path, { token: this.#token, body, ...options });
    } catch (error) {
      if (error.code === "unauthorized") this.#onUnauthorized();
      throw error;
    }
  }
}

/** Leaves out what is not given. */
const query = (params) => new URLSearchParams(Object.entries(params).filter(([, value]) => value !== undefined && value !== null));

async function request(method, path, { token, body, keepalive = false, as = "json", cache = "no-store", timeout = ANSWER_TIMEOUT_MS } = {}) {
  const headers = { Accept: as === "json" ? "application/json" : "*/*" };
  // Authorization may be for the login of a proxy in front.
  if (token) headers["Chinwag-Token"] = token;
  const isBlob = body instanceof Blob;
  if (body && !isBlob) headers["Content-Type"] = "application/json";
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), timeout);
  let response;
  let answer = null;
  try {
    response = await fetch(new URL(path, BASE), {
      method,
      headers,
      keepalive,
      body: isBlob ? body : body && JSON.stringify(body),
      cache,
      // A proxy in front that asks for a login of its own knows people by cookie or basic auth.
      credentials: "same-origin",
      redirect: "manual",
      signal: abort.signal,
    });
    if (response.ok && as === "blob") answer = await response.blob();
    else if (response.status !== 204 && response.type !== "opaqueredirect") answer = await response.json();
  } catch (cause) {
    // The server answers an unknown route in JSON too; a file that is not there, behind a proxy, may be anything.
    if (response?.status === 404) throw new ApiError("not_found", "status 404");
    // A network's own page in place of an answer: for us the server is as far away as without a cable.
    throw new ApiError("unreachable", cause.message);
  } finally {
    clearTimeout(timer);
  }
  // The server itself redirects nothing.
  if (response.type === "opaqueredirect") throw new ApiError("redirected", "a redirect");
  if (response.ok) return answer;
  const code = answer?.error?.code;
  if (typeof code !== "string") throw new ApiError("unreachable", `status ${response.status}`);
  throw new ApiError(code, String(answer.error.message ?? ""), seconds(response.headers.get("Retry-After")));
}

/** `Retry-After` is a number of seconds or a date (RFC 9110, 10.2.3). */
function seconds(header) {
  if (header === null) return null;
  const value = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(value) ? Math.max(1, Math.ceil(value)) : null;
}

const KNOWN = new Set([
  "unreachable", "invalid_credentials", "username_taken", "invalid_username", "invalid_password", "registration_closed",
  "invalid_invite", "unauthorized", "forbidden_origin", "unavailable", "forbidden", "not_found", "name_taken", "archived",
  "too_old", "gone", "no_space", "payload_too_large", "unsupported_media_type",
]);

/** What happened, as a sentence that says what to do next. */
export function inWords({ code, message, retryAfter }) {
  // Not the page's own address: the service worker would answer that one itself.
  if (code === "redirected") return t("error.redirected", { address: new URL("healthz", BASE).href });
  if (code === "rate_limited") return retryAfter === null || retryAfter === undefined ? t("error.slow") : t("error.wait", { n: retryAfter });
  return KNOWN.has(code) ? t(`error.${code}`) : message || t("error.other");
}
