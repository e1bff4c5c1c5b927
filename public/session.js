// The login: who this browser is, alike in every tab. The token lives in localStorage and nowhere else: not in a URL,
// not in a cookie, not in the service worker.
//
// Session: `token`, `username` (null if nobody is logged in), `logIn`, `logOut`, `expire(token)`. Fires `change` with
// `{ words, loggedOut }` when a login begins or ends, in this tab or another.

import { ApiError, login, logout } from "./api.js";
import { t } from "./i18n/index.js";
import { Store } from "./store/prefs.js";

const SESSION_KEY = "chinwag.session";
/** Written and deleted: tells other tabs that the session they lose was ended by its person. */
const LOGOUT_KEY = "chinwag.logout";
/**
 * Before each token that the server has not been told of yet, since it could not be reached when its person logged out. What is
 * kept there is when that was. A key for each: of two tabs that log out at once neither loses the other's.
 */
const LEFT_PREFIX = "chinwag.left/";
const LEFT_MOST = 10;
/** Where version 0.2.0 kept all of them. */
const ONE_LEFT_KEY = "chinwag.left";

export class Session extends EventTarget {
  #store;
  #current;
  /** Another tab said that its person logged out: what follows is no session that died. */
  #leaving = false;

  constructor(store = new Store("localStorage")) {
    super();
    this.#store = store;
    this.#current = this.#read();
    this.#takeOver();
    globalThis.addEventListener?.("storage", ({ key, newValue }) => {
      if (key === LOGOUT_KEY && newValue !== null) this.#leaving = true;
      // `key` is null when everything was cleared.
      if (key === SESSION_KEY || key === null) this.#follow();
    });
    this.tellOfLeaving();
  }

  get token() {
    return this.#current?.token ?? null;
  }

  get username() {
    return this.#current?.username ?? null;
  }

  async logIn(username, password) {
    const answer = await login(username, password);
    if (typeof answer?.token !== "string" || typeof answer.username !== "string") throw new ApiError("unreachable", "not the server's answer");
    this.#current = { token: answer.token, username: answer.username };
    this.#store.set(SESSION_KEY, this.#current);
    this.#announce();
  }

  /** Forgets first and tells the server after: no answer may leave a token in use. Without a server it is told later. */
  async logOut() {
    const { token } = this;
    this.#store.set(LOGOUT_KEY, Date.now());
    this.#forget({ words: t("login.loggedOut"), loggedOut: true });
    this.#store.delete(LOGOUT_KEY);
    if (!token || (await this.#tell(token))) return;
    this.#store.set(LEFT_PREFIX + token, Date.now());
    for (const old of this.#left().slice(0, -LEFT_MOST)) this.#store.delete(LEFT_PREFIX + old);
  }

  /** Ends on the server what was ended here. */
  async tellOfLeaving() {
    for (const token of this.#left()) {
      if (!(await this.#tell(token))) return;
      this.#store.delete(LEFT_PREFIX + token);
    }
  }

  /** The server no longer knows `token`; if another has taken its place meanwhile, that one stays. */
  expire(token) {
    if (token === this.token) this.#forget({ words: t("error.unauthorized") });
  }

  /** Whether the server has ended the session, or never knew it. */
  async #tell(token) {
    try {
      await logout(token);
      return true;
    } catch (error) {
      return !["unreachable", "redirected", "unavailable"].includes(error.code);
    }
  }

  #takeOver() {
    const tokens = [this.#store.get(ONE_LEFT_KEY)].flat().filter((token) => typeof token === "string");
    for (const token of tokens.slice(-LEFT_MOST)) this.#store.set(LEFT_PREFIX + token, Date.now());
    this.#store.delete(ONE_LEFT_KEY);
  }

  /** The oldest first. */
  #left() {
    const when = (key) => Number(this.#store.get(key)) || 0;
    const keys = this.#store.keys(LEFT_PREFIX).sort((a, b) => when(a) - when(b));
    return keys.map((key) => key.slice(LEFT_PREFIX.length));
  }

  #forget(why) {
    this.#current = null;
    this.#store.delete(SESSION_KEY);
    this.#announce(why);
  }

  #follow() {
    const before = this.token;
    this.#current = this.#read();
    if (this.token !== before) this.#announce(this.token ? {} : { words: t("login.endedElsewhere"), loggedOut: this.#leaving });
    this.#leaving = false;
  }

  #read() {
    const stored = this.#store.get(SESSION_KEY);
    return typeof stored?.token === "string" && typeof stored.username === "string" ? stored : null;
  }

  #announce({ words = "", loggedOut = false } = {}) {
    this.dispatchEvent(new CustomEvent("change", { detail: { words, loggedOut } }));
  }
}
