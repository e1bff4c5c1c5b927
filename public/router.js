// Addresses: `#/room/ID` and `#/room/ID/m/ID`. An invitation's `#invite=…` is not ours and is left alone.
//
//   parse(hash)                  `{ room, message }` or null
//   addressOf(room, message)     the hash
//   new Router(onChange)         `go(room, message, { replace })`; `onChange({ room, message })` when the address is another, by
//                                whatever way: a link, back and forward, `go`

const ADDRESS = /^#\/room\/(\d{1,16})(?:\/m\/(\d{1,16}))?$/;

export function parse(hash) {
  const [, room, message] = ADDRESS.exec(hash) ?? [];
  return room ? { room: Number(room), message: message ? Number(message) : null } : null;
}

export const addressOf = (room, message = null) => (message === null ? `#/room/${room}` : `#/room/${room}/m/${message}`);

export class Router {
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    addEventListener("popstate", this.#changed);
  }

  close() {
    removeEventListener("popstate", this.#changed);
  }

  get current() {
    return parse(location.hash);
  }

  go(room, message = null, { replace = false } = {}) {
    const address = addressOf(room, message);
    if (location.hash !== address) history[replace ? "replaceState" : "pushState"](null, "", address);
    this.#onChange({ room, message });
  }

  #changed = () => {
    if (this.current) this.#onChange(this.current);
  };
}
