// REST calls. Whatever goes wrong, the caller gets one kind of error, `ApiError`, with a `code` to act on;
// `inWords` turns that into a sentence for a person. No DOM, no state.

/** How long an answer may take before the server counts as out of reach. */
const ANSWER_TIMEOUT_MS = 15_000;

export class ApiError extends Error {
  /** The protocol's code, or `unreachable`: no answer, or one that is not the server's. */
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

export const register = (username, password, invite) =>
  request("POST", "/register", { body: invite ? { username, password, invite } : { username, password } });

export const login = (username, password) => request("POST", "/login", { body: { username, password } });

/** `keepalive` lets the request outlive a page that is being closed. */
export const logout = (token) => request("POST", "/logout", { token, keepalive: true });

/** A page of history; `range` is `{ limit }` with `before` or `after`, or neither for the newest. */
export const messages = (token, range) => request("GET", `/messages?${new URLSearchParams(range)}`, { token });

export const health = () => request("GET", "/healthz");

async function request(method, path, { token, body, keepalive = false } = {}) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  let answer = null;
  try {
    response = await fetch(path, {
      method,
      headers,
      keepalive,
      body: body && JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    });
    if (response.status !== 204) answer = await response.json();
  } catch (cause) {
    // A network's sign-in page answers in HTML, or redirects: for us the server is as far away as without a cable.
    throw new ApiError("unreachable", cause.message);
  }
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

const WORDS = new Map([
  ["unreachable", "The server cannot be reached. Check your connection and try again."],
  ["invalid_credentials", "That name and password do not belong together. Check both and try again."],
  ["username_taken", "Somebody already has that name. Choose another, or log in if it is yours."],
  ["invalid_username", "A name has 1 to 32 letters, digits, dots, dashes or underscores, and starts with a letter or digit."],
  ["invalid_password", "A password has 8 to 256 characters."],
  ["registration_closed", "This server takes no new accounts. Ask whoever runs it for an invitation."],
  ["invalid_invite", "This invitation has expired or has been used up. Ask for a new one."],
  ["unauthorized", "Your session has ended. Log in again to go on."],
  ["forbidden_origin", "This server does not accept logins from this address. Open it at its own address."],
  ["unavailable", "The server cannot do this right now. Try again in a moment."],
]);

/** What happened, as a sentence that says what to do next. */
export function inWords({ code, message, retryAfter }) {
  if (code === "rate_limited") {
    if (retryAfter === null) return "Too many attempts. Wait a little, then try again.";
    return `Too many attempts. Wait ${retryAfter} ${retryAfter === 1 ? "second" : "seconds"}, then try again.`;
  }
  return WORDS.get(code) ?? message ?? "Something went wrong. Try again.";
}
