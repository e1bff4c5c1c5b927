// What the browser tests stand on: a real server on a free port with a database of its own, a real Chromium, `Person` (someone
// at the page, who finds things by role and name only) and `Robot` (someone at the protocol, without a page).

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { chromium } from "playwright-core";
import WebSocket from "ws";

export const PASSWORD = "correct horse";
/** How long something may take that should happen by itself: long enough for a machine that does ten other things. */
export const PATIENCE_MS = 60_000;

/** What `promise` resolves to, or an error that says what did not come: the runner's limit ends whole files, without a word. */
export function within(promise, what, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** For what is true soon, but not at once: asserts until it holds, and fails as the last try did. */
export async function eventually(check, ms = PATIENCE_MS) {
  const end = Date.now() + ms;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (!(error instanceof assert.AssertionError) || Date.now() > end) throw error;
    }
    await sleep(50);
  }
}

/** Resolves once `read()` gives `expected`, which it may not do at once. */
export const becomes = (read, expected) => eventually(async () => assert.deepEqual(await read(), expected));

const BINARY = resolve(import.meta.dirname, "../..", process.env.CHINWAG_BIN ?? "target/release/chinwag");
export const CHROMIUM = [process.env.CHINWAG_CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser"].find((path) => path && existsSync(path));

const NO_LIMITS = ["--message-rate", "0", "--auth-rate", "0", "--user-connections", "0", "--address-connections", "0"];

export const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A signal is ours to hear: the browser ends with the process, as the servers do. */
const BROWSER = { executablePath: CHROMIUM, handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false };
export const launch = ({ flags = [], ...options } = {}) => chromium.launch({ ...BROWSER, args: [...FLAGS, ...flags], ...options });
/** A browser that keeps what it stores in `directory`, as somebody's own does. */
export const launchIn = (directory) => chromium.launchPersistentContext(directory, { ...BROWSER, args: FLAGS });

/** Servers of tests that failed before they closed them. */
const running = new Set();
process.on("exit", () => running.forEach((server) => server.abandon()));
// By itself a signal ends the process without an "exit", and what it started lives on.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** The program itself. It can be killed and comes back on the same port with the same database. */
export class Server {
  #directory = mkdtempSync(join(tmpdir(), "chinwag-browser-"));
  #flags;
  #process = null;
  #port = 0;

  static async start(flags = NO_LIMITS) {
    const server = new Server(flags);
    await server.start();
    return server;
  }

  constructor(flags) {
    this.#flags = flags;
    running.add(this);
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  get port() {
    return this.#port;
  }

  get database() {
    return join(this.#directory, "chinwag.db");
  }

  async start() {
    const flags = ["--listen", `127.0.0.1:${this.#port}`, "--db", this.database, ...this.#flags];
    this.#process = spawn(BINARY, flags, { stdio: ["ignore", "pipe", process.env.CHINWAG_LOG ? "inherit" : "ignore"] });
    this.#port = await within(this.#greeting(), `${BINARY} to start`);
  }

  /** The port it says it listens at. */
  async #greeting() {
    for await (const line of createInterface(this.#process.stdout)) {
      const address = /listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(line);
      if (address) return Number(address[1]);
    }
    throw new Error(`${BINARY} did not start`);
  }

  /** Without a word, as when the power goes. */
  async kill(signal = "SIGKILL") {
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null) return;
    const gone = new Promise((done) => this.#process.once("exit", done));
    this.#process.kill(signal);
    await within(gone, "the end of the server");
  }

  async close() {
    await this.kill();
    this.abandon();
  }

  /** What `close` does, for when there is no time to wait. */
  abandon() {
    running.delete(this);
    this.#process?.kill("SIGKILL");
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** What another of the program's commands prints about this server's database. */
  command(...words) {
    return execFileSync(BINARY, [...words, "--db", this.database], { encoding: "utf8" });
  }

  async post(path, body, token) {
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const response = await fetch(this.url + path, { method: "POST", headers, body: JSON.stringify(body) });
    return response.status === 204 ? null : response.json();
  }

  async token(name) {
    await this.post("/register", { username: name, password: PASSWORD });
    return (await this.post("/login", { username: name, password: PASSWORD })).token;
  }

  /** What the answer to any request holds. */
  async ask(token, method, path, body) {
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
    const response = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body) });
    return response.status === 204 ? null : response.json();
  }

  async messages(token, query = "limit=200") {
    const response = await fetch(`${this.url}/messages?${query}`, { headers: { Authorization: `Bearer ${token}` } });
    return (await response.json()).messages;
  }
}

/** Between page and server; it can fall silent without closing anything, as a network does that has gone away. */
export class Wire {
  /** Bytes that came from the server, and requests that went to it. */
  received = 0;
  requests = 0;
  /** What becomes of the bytes of the page. */
  change = (data) => data;

  #server;
  #sockets = new Set();

  static async to(port) {
    const wire = new Wire(port);
    await new Promise((done) => wire.#server.listen(0, "127.0.0.1", done));
    return wire;
  }

  constructor(port) {
    this.#server = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      far.on("data", ({ length }) => (this.received += length));
      near.on("data", (data) => (this.requests += /^(GET|POST) /.test(data.toString("latin1")) ? 1 : 0));
      for (const [from, to] of [[near, far], [far, near]]) {
        from.cut = false;
        this.#sockets.add(from);
        from.on("data", (data) => from.cut || to.write(from === near ? this.change(data) : data));
        from.on("error", () => {});
        from.on("close", () => {
          this.#sockets.delete(from);
          if (!from.cut) to.destroy();
        });
      }
    });
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** The connections there are carry nothing any more; new ones are as good as before. */
  cut() {
    for (const socket of this.#sockets) socket.cut = true;
  }

  close() {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

/** Short timers of the page wait from here on until it calls `letGo`. */
export const holdTimers = ({ page }) =>
  page.evaluate(() => {
    const { setTimeout } = window;
    const waiting = [];
    window.setTimeout = (run, ms, ...rest) => (ms < 100 ? waiting.push(() => run(...rest)) : setTimeout(run, ms, ...rest));
    window.letGo = () => waiting.splice(0).forEach((run) => run());
  });

/** Someone at the protocol; what is said is acknowledged before the promise resolves. */
export class Robot {
  #socket;
  #acks = new Map();
  token;
  name;
  frames = [];
  #waiting = [];

  static async join(server, name) {
    const robot = new Robot();
    robot.name = name;
    robot.token = await server.token(name);
    await robot.#connect(server);
    return robot;
  }

  async #connect(server) {
    this.#socket = new WebSocket(`${server.url.replace("http", "ws")}/ws`);
    this.#socket.on("error", () => {});
    this.#socket.on("message", (data) => this.#receive(JSON.parse(data)));
    await within(new Promise((done) => this.#socket.once("open", done)), `${this.name}'s socket`);
    this.#write({ type: "auth", token: this.token });
    await this.hears(({ type }) => type === "auth_success");
  }

  #receive(frame) {
    if (frame.type === "ack") this.#acks.get(frame.nonce)?.(frame.id);
    this.frames.push(frame);
    this.#waiting = this.#waiting.filter(({ wanted, resolve }) => !(wanted(frame) && (resolve(frame), true)));
  }

  /** Resolves with the first frame, past or future, that is wanted. */
  hears(wanted) {
    const heard = this.frames.find(wanted);
    return heard ?? within(new Promise((resolve) => this.#waiting.push({ wanted, resolve })), `what ${this.name} was to hear`);
  }

  #write(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  typing(room) {
    this.#write({ type: "typing", room });
  }

  /** Types until the function it returns is called: once told of, typing is shown for six seconds only. */
  keepTyping(room) {
    this.typing(room);
    const timer = setInterval(() => this.typing(room), 2_000);
    return () => clearInterval(timer);
  }

  react(message, emoji) {
    this.#write({ type: "react", message, emoji, on: true });
  }

  /** Resolves to the id; `more` is `{ room, reply_to }`. */
  say(content, more = {}) {
    const nonce = crypto.randomUUID();
    const stored = new Promise((done) => this.#acks.set(nonce, done));
    this.#write({ type: "message", content, nonce, ...more });
    return within(stored, `the ack of what ${this.name} said`);
  }

  /** `count` messages, `text(n)` each; a few hundred on their way at a time. */
  async tell(count, text) {
    for (let from = 0; from < count; from += 250) {
      await Promise.all(Array.from({ length: Math.min(250, count - from) }, (_, n) => this.say(text(from + n))));
    }
  }

  leave() {
    this.#socket.close();
  }
}

/** What Chromium says about failed requests by itself; a page cannot keep it from saying so. */
const OF_THE_NETWORK = /^(Failed to load resource|WebSocket connection to)/;

/** In the page: the ids of the messages that were marked are in `window.marked`. */
function rememberMarked() {
  window.marked = new Set();
  const look = (changes) => changes.forEach(({ target }) => target.matches("article.marked") && window.marked.add(target.dataset.id));
  new MutationObserver(look).observe(document, { subtree: true, attributeFilter: ["class"] });
}

/** Someone at the page. */
export class Person {
  page;
  name;
  /** What a page must never have: exceptions, `console.error`, refusals of the content security policy. */
  complaints = [];
  requests = [];

  static async visit(browser, url, { name, path = "/", shows, ...options } = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    const person = await Person.open(context, url + path, shows);
    person.name = name;
    return person;
  }

  /** `shows` is what the page comes to show: the document is loaded before the view's own module is. */
  static async open(context, address, shows = ".view") {
    const person = new Person();
    person.page = await context.newPage();
    person.page.setDefaultTimeout(PATIENCE_MS);
    person.page.on("pageerror", (error) => person.complaints.push(String(error)));
    person.page.on("console", (message) => {
      if (message.type() === "error" && !OF_THE_NETWORK.test(message.text())) person.complaints.push(message.text());
    });
    person.page.on("request", (request) => person.requests.push(request.url()));
    await person.page.addInitScript(rememberMarked);
    await person.page.goto(address);
    await person.page.locator(shows).waitFor();
    return person;
  }

  /** Someone with an account, in the chat. */
  static async join(browser, url, name, options = {}) {
    const person = await Person.visit(browser, url, { name, ...options });
    await person.signUp();
    return person;
  }

  username = () => this.page.getByRole("textbox", { name: "Username" });
  password = () => this.page.getByLabel("Password", { exact: true });
  alert = () => this.page.getByRole("alert");
  status = () => this.page.getByRole("status", { name: "Connection" });
  log = () => this.page.getByRole("log", { name: "Messages" });
  articles = () => this.log().getByRole("article");
  article = (text) => this.articles().filter({ hasText: text });
  box = () => this.page.getByRole("textbox", { name: "Message" });
  people = () => this.page.getByRole("list", { name: "People online" });
  rooms = () => this.page.getByRole("navigation", { name: "Rooms" });
  /** The link of a room, named with all that is said of it: "School runs, 12 unread, 1 mention". */
  link = (name) => this.rooms().getByRole("link", { name, exact: true });
  heading = (name) => this.page.getByRole("heading", { name, exact: true });
  toolbar = () => this.page.getByRole("toolbar", { name: "Message actions" });
  separator = (name) => this.log().getByRole("separator", { name, exact: true });
  button = (name) => this.page.getByRole("button", { name, exact: true });
  text = (text) => this.page.getByText(text, { exact: true });

  async fill(name = this.name, password = PASSWORD) {
    await this.username().fill(name);
    await this.password().fill(password);
  }

  async signUp() {
    await this.fill();
    await this.button("Create account").click();
    await this.box().waitFor();
    await this.online();
  }

  async logIn() {
    await this.fill();
    await this.button("Log in").click();
    await this.box().waitFor();
    await this.online();
  }

  /** The dialog "Settings". Where the page is narrow, its button is in the sheet of the rooms. */
  async settings() {
    await this.button("Settings").or(this.button("Rooms")).first().waitFor();
    if (!(await this.button("Settings").isVisible())) await this.button("Rooms").click();
    await this.button("Settings").click();
    const dialog = this.page.getByRole("dialog", { name: "Settings" });
    await dialog.waitFor();
    return dialog;
  }

  async logOut() {
    await (await this.settings()).getByRole("button", { name: "Log out", exact: true }).click();
  }

  online = () => this.is(/^Online/);
  is = (state) => this.status().filter({ hasText: state }).waitFor();

  async say(text) {
    await this.box().fill(text);
    await this.box().press("Enter");
  }

  /** Once, acknowledged, and complete. */
  async sees(text) {
    await this.article(text).and(this.page.locator("[data-id]:not([data-state])")).first().waitFor();
    await eventually(async () => {
      const seen = await this.article(text).evaluateAll((articles) => articles.map(({ dataset }) => ({ ...dataset })));
      assert.equal(seen.length, 1, `${text}: ${JSON.stringify(seen)}`);
    });
  }

  async open(room) {
    await this.rooms().getByRole("link", { name: new RegExp(`^${room}(,|$)`) }).click();
    await this.heading(room).waitFor();
  }

  /** Points at a message, and presses one of its actions. */
  async act(text, action) {
    await this.article(text).first().hover();
    await this.toolbar().getByRole("button", { name: action, exact: true }).click();
  }

  /** Resolves once the message has been marked, which it is for a moment only, since the page was loaded. */
  wasMarked = (id) => this.until((id) => window.marked.has(String(id)), id);

  token = () => this.page.evaluate(() => JSON.parse(localStorage.getItem("chinwag.session")).token);

  /** What the log holds: `{ id, state, author, time, text }`. */
  shown = () =>
    this.articles().evaluateAll((articles) =>
      articles.map((article) => ({
        id: Number(article.dataset.id ?? NaN),
        state: article.dataset.state ?? null,
        author: article.querySelector("header :first-child").textContent,
        time: article.querySelector("time").dateTime,
        text: article.querySelector("[dir=auto]").textContent,
      })),
    );

  /** Resolves once `condition(argument)` holds in the page. */
  until = (condition, argument) => this.page.waitForFunction(condition, argument, { timeout: PATIENCE_MS });

  /** Turns the wheel until the end is left: a turn is lost if the page follows the end at that moment. */
  wheelUp = (pixels) =>
    eventually(async () => {
      await this.log().hover();
      await this.page.mouse.wheel(0, -pixels);
      const isLeft = await this.page.locator("#jump").waitFor({ timeout: 2_000 }).then(() => true, () => false);
      assert.ok(isLeft, "the end is left");
    });

  /** Scrolls the log as a wheel or finger would: to a place, then on with the events of it. */
  scroll = (top) => this.log().evaluate((log, top) => log.scrollTo({ top, behavior: "instant" }), top);

  /** The name of what has the focus; nothing if the browser's own controls have it. */
  focused = () =>
    this.page.evaluate(() => {
      const { activeElement } = document;
      if (activeElement === document.body) return "";
      return activeElement.ariaLabel ?? activeElement.labels?.[0]?.textContent ?? activeElement.textContent.trim();
    });

  hasFocus = (name) => becomes(this.focused, name);

  assertQuiet() {
    assert.deepEqual(this.complaints, []);
  }

  async leave() {
    this.assertQuiet();
    await this.page.context().close();
  }
}

export function assertRising(shown) {
  for (let index = 1; index < shown.length; index += 1) {
    assert.ok(shown[index - 1].id < shown[index].id, `${shown[index - 1].id} before ${shown[index].id}`);
  }
}

/** Makes a page believe it is hidden, or shown again. */
export const setHidden = (page, hidden) =>
  page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => (hidden ? "hidden" : "visible") });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Asserts that axe finds nothing in what `selector` names, or in the page, by all rules or those that have one of `tags`. */
export async function assertAccessible(page, { selector = null, tags = null, state } = {}) {
  // Evaluated, not added as a script: the page's own policy would forbid that.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(
    ([selector, tags]) => window.axe.run(selector === null ? document : document.querySelector(selector), tags ? { runOnly: { type: "tag", values: tags } } : {}),
    [selector, tags],
  );
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`).join("\n")}`);
  assert.deepEqual(found, [], state);
}
