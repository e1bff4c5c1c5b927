// Debian's Firefox ESR, driven by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/): the protocol itself over a socket, since
// what drives Chromium here does not know this Firefox. `Visitor` is somebody at the page, who finds things by role and name.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import WebSocket from "ws";

import { within } from "./harness.js";

export const FIREFOX = [process.env.CHINWAG_FIREFOX, "/usr/bin/firefox-esr"].find((path) => path && existsSync(path));

/** How long one thing may take: starting a browser on a busy machine takes most of it. */
const PATIENCE_MS = 120_000;

/** A new profile asks, imports, updates and calls home; none of that may happen here. */
const PREFS = {
  "app.normandy.enabled": false,
  "app.update.auto": false,
  "app.update.disabledForTesting": true,
  "browser.aboutwelcome.enabled": false,
  "browser.newtabpage.enabled": false,
  "browser.safebrowsing.downloads.remote.enabled": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "browser.search.update": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "dom.push.connection.enabled": false,
  "extensions.getAddons.cache.enabled": false,
  "extensions.systemAddon.update.enabled": false,
  "extensions.update.enabled": false,
  "geo.provider.network.url": "",
  "intl.accept_languages": "en-US",
  "media.gmp-manager.updateEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "network.dns.disablePrefetch": true,
  "network.http.speculative-parallel-limit": 0,
  "network.prefetch-next": false,
  "services.settings.server": "data:,#remote-settings-dummy/v1",
  "signon.rememberSignons": false,
  "toolkit.telemetry.enabled": false,
  "toolkit.telemetry.server": "",
  "ui.prefersReducedMotion": 1,
};

/** Keys of WebDriver, by their names in the page. */
const KEYS = { Enter: "\ue007", Shift: "\ue008", Control: "\ue009", Escape: "\ue00c", End: "\ue010", ArrowUp: "\ue013", ArrowDown: "\ue015", Tab: "\ue004" };

/** Not `browsingContext.locateNodes` by role and name: without a screen this Firefox does not answer that. */
const ROLES = { button: "button", image: "img, [role=img]", textbox: "input, textarea" };

/** In the page: the first element in sight that has this name. */
const named = (selector, name) =>
  [...document.querySelectorAll(selector)].find((element) => {
    const given = element.ariaLabel || element.alt || element.labels?.[0]?.textContent;
    return element.checkVisibility() && (given || element.textContent.trim()) === name;
  });

export class Firefox {
  #directory = mkdtempSync(join(tmpdir(), "chinwag-firefox-"));
  #process;
  #socket;
  #lastId = 0;
  #answers = new Map();
  #listeners = [];

  static async launch() {
    const firefox = new Firefox();
    try {
      await firefox.#start();
    } catch (error) {
      await firefox.close();
      throw error;
    }
    return firefox;
  }

  async #start() {
    const prefs = Object.entries(PREFS).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`);
    writeFileSync(join(this.#directory, "user.js"), prefs.join(""));
    const flags = ["--headless", "--no-remote", "--profile", this.#directory, "--remote-debugging-port", "0", "about:blank"];
    this.#process = spawn(FIREFOX, flags, { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, HOME: this.#directory } });
    process.once("exit", this.#abandon);
    const address = await within(this.#greeting(), `${FIREFOX} to start`, PATIENCE_MS);
    // What it says after that is read by nobody, and must not stop it.
    this.#process.stderr.resume();
    this.#socket = new WebSocket(`${address}/session`);
    this.#socket.on("message", (data) => this.#receive(JSON.parse(data)));
    this.#socket.on("error", () => {});
    await within(new Promise((done) => this.#socket.once("open", done)), "Firefox's socket", PATIENCE_MS);
    await this.send("session.new", { capabilities: { alwaysMatch: { unhandledPromptBehavior: { default: "ignore" } } } });
    await this.send("session.subscribe", { events: ["log.entryAdded"] });
  }

  /** The address it says it listens at. */
  async #greeting() {
    for await (const line of createInterface(this.#process.stderr)) {
      const [address] = /ws:\/\/[^\s/]+/.exec(line) ?? [];
      if (address) return address;
    }
    throw new Error(`${FIREFOX} did not start`);
  }

  #receive({ id, type, result, error, message, method, params }) {
    if (type === "event") return this.#listeners.forEach((listener) => listener(method, params));
    const answer = this.#answers.get(id);
    this.#answers.delete(id);
    if (type === "error") answer?.reject(new Error(`${error}: ${message}`));
    else answer?.resolve(result);
  }

  send(method, params) {
    const id = (this.#lastId += 1);
    const answered = new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
    this.#socket.send(JSON.stringify({ id, method, params }));
    return within(answered, `Firefox to answer ${method}`, PATIENCE_MS);
  }

  listen(listener) {
    this.#listeners.push(listener);
  }

  #abandon = () => {
    this.#process?.kill("SIGKILL");
    rmSync(this.#directory, { recursive: true, force: true, maxRetries: 10 });
  };

  async close() {
    const { exitCode, signalCode } = this.#process ?? { exitCode: 0 };
    if (exitCode === null && signalCode === null) {
      const gone = new Promise((done) => this.#process.once("exit", done));
      this.#socket?.send(JSON.stringify({ id: (this.#lastId += 1), method: "browser.close", params: {} }));
      await within(gone, "Firefox to close", PATIENCE_MS).catch(() => {});
    }
    this.#socket?.terminate();
    process.off("exit", this.#abandon);
    this.#abandon();
  }
}

/** What Firefox says about the network by itself; a page cannot keep it from saying so. */
const OF_THE_NETWORK = /^Firefox can.t establish a connection|^The connection to ws:/;

/** Somebody at the page, in a window with a storage of its own. */
export class Visitor {
  /** What a page must never have: exceptions, `console.error`, refusals of the content security policy. */
  complaints = [];
  #firefox;
  #context;

  static async visit(firefox, url) {
    const visitor = new Visitor();
    visitor.#firefox = firefox;
    const { userContext } = await firefox.send("browser.createUserContext", {});
    const { context } = await firefox.send("browsingContext.create", { type: "tab", userContext });
    visitor.#context = context;
    firefox.listen((method, { level, text, source }) => {
      if (method !== "log.entryAdded" || level !== "error" || source?.context !== context) return;
      if (!OF_THE_NETWORK.test(text)) visitor.complaints.push(text);
    });
    await firefox.send("browsingContext.setViewport", { context, viewport: { width: 1000, height: 640 } });
    await firefox.send("browsingContext.navigate", { context, url, wait: "complete" });
    return visitor;
  }

  reload = () => this.#firefox.send("browsingContext.reload", { context: this.#context, wait: "complete" });
  /** Back and forward: -1 and 1. */
  go = (delta) => this.#firefox.send("browsingContext.traverseHistory", { context: this.#context, delta });

  /** What `task(...args)` gives in the page; both go over as JSON. */
  async evaluate(task, ...args) {
    const { value } = await this.#call(`async () => JSON.stringify(await (${task})(...${JSON.stringify(args)}))`);
    return value === undefined ? undefined : JSON.parse(value);
  }

  async #call(functionDeclaration) {
    const target = { context: this.#context };
    const { result, exceptionDetails } = await this.#firefox.send("script.callFunction", { functionDeclaration, awaitPromise: true, target });
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return result;
  }

  /** Resolves once `condition(...args)` holds in the page. */
  async until(condition, ...args) {
    const end = Date.now() + PATIENCE_MS;
    while (!(await this.evaluate(condition, ...args))) {
      if (Date.now() > end) throw new Error(`in vain: ${condition} ${JSON.stringify(args)}`);
      await sleep(100);
    }
  }

  /** Resolves once there is such an element in sight, to the first one. */
  async find(role, name) {
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
      const { sharedId } = await this.#call(`() => (${named})(...${JSON.stringify([ROLES[role], name])})`);
      if (sharedId) return { sharedId };
      if (Date.now() > end) throw new Error(`in vain: ${role} ${name}`);
      await sleep(100);
    }
  }

  async press(role, name) {
    const { sharedId } = await this.find(role, name);
    const move = { type: "pointerMove", x: 0, y: 0, origin: { type: "element", element: { sharedId } } };
    const actions = [move, { type: "pointerDown", button: 0 }, { type: "pointerUp", button: 0 }];
    await this.#perform({ type: "pointer", id: "mouse", parameters: { pointerType: "mouse" }, actions });
  }

  /** Keys one after the other, by name ("Enter") or as a text. */
  async type(...texts) {
    const keys = texts.flatMap((text) => (text in KEYS ? [KEYS[text]] : [...text]));
    const actions = keys.flatMap((value) => [{ type: "keyDown", value }, { type: "keyUp", value }]);
    await this.#perform({ type: "key", id: "keyboard", actions });
  }

  #perform = (source) => this.#firefox.send("input.performActions", { context: this.#context, actions: [source] });
}
