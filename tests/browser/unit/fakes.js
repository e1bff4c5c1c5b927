// Stand-ins for what a browser gives the modules, so that they can be tested without one.

/** A socket that records what is sent and does what the test says. */
export class FakeSocket {
  static OPEN = 1;
  static all = [];

  readyState = 0;
  sent = [];
  closed = false;

  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
  }

  static get last() {
    return FakeSocket.all.at(-1);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  open() {
    this.readyState = 1;
    this.onopen();
  }

  receive(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  drop(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  /** What was sent of one type, without the type. */
  of(wanted) {
    return this.sent.filter(({ type }) => type === wanted).map(({ type, ...rest }) => rest);
  }
}

/** Storage that counts as the browser's and forgets with the test. */
export class FakeStore {
  items = new Map();

  get(key) {
    return this.items.has(key) ? JSON.parse(this.items.get(key)) : null;
  }

  set(key, value) {
    this.items.set(key, JSON.stringify(value));
  }

  delete(key) {
    this.items.delete(key);
  }

  deleteAll(prefix) {
    for (const key of this.keys(prefix)) this.delete(key);
  }

  keys(prefix) {
    return [...this.items.keys()].filter((key) => key.startsWith(prefix));
  }
}

/** The same storage in two tabs of different processes: each sees what the other wrote once `LateStore.deliver` is called. */
export class LateStore extends FakeStore {
  static #unseen = [];

  static pair() {
    const [first, second] = [new LateStore(), new LateStore()];
    first.other = second;
    second.other = first;
    return [first, second];
  }

  static deliver() {
    for (const write of LateStore.#unseen.splice(0)) write();
  }

  set(key, value) {
    super.set(key, value);
    LateStore.#unseen.push(() => this.other.items.set(key, JSON.stringify(value)));
  }

  delete(key) {
    super.delete(key);
    LateStore.#unseen.push(() => this.other.items.delete(key));
  }
}

export const message = (id, username = "Ada", content = `message ${id}`) => ({ id, username, content, created_at: 1_000 * id });

/** A server's history: `ids` may have holes. Pages wait until the test lets them go if `held` is set. */
export class FakeHistory {
  requests = [];
  #messages = [];
  #waiting = [];
  held = false;
  broken = false;

  constructor(count = 0) {
    for (let id = 1; id <= count; id += 1) this.#messages.push(message(id));
  }

  get newest() {
    return this.#messages.at(-1)?.id ?? 0;
  }

  store(stored) {
    this.#messages.push(stored);
    return stored;
  }

  /** Deletes a message. */
  forget(id) {
    this.#messages = this.#messages.filter((stored) => stored.id !== id);
  }

  page = async (range) => {
    this.requests.push(range);
    if (this.broken) throw new Error("no server");
    const answer = this.#read(range);
    if (this.held) await new Promise((resolve) => this.#waiting.push(resolve));
    return answer;
  };

  async release() {
    this.held = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
    await settled();
  }

  #read({ limit, before, after }) {
    let found = this.#messages;
    if (after !== undefined) {
      found = found.filter(({ id }) => id > after);
      return { messages: found.slice(0, limit), has_more: found.length > limit };
    }
    if (before !== undefined) found = found.filter(({ id }) => id < before);
    return { messages: found.slice(-limit), has_more: found.length > limit };
  }
}

/** Lets every promise that can settle do so. */
export async function settled() {
  for (let turn = 0; turn < 200; turn += 1) await null;
}
