// Pictures of messages, as addresses that an `<img>` can show: the session goes along with the request, so the bytes come as a
// blob. Loaded when the first picture is shown.

/** So many are kept in memory; what lies further up is fetched again when it is scrolled to, mostly from the browser's cache. */
const KEPT = 60;

export class Pictures {
  #api;
  #addresses = new Map();

  constructor(api) {
    this.#api = api;
  }

  /** A promise of the address; one request a picture, however often it is shown. */
  address(id) {
    const known = this.#addresses.get(id) ?? this.#api.image(id).then((blob) => URL.createObjectURL(blob));
    this.#addresses.delete(id);
    this.#addresses.set(id, known);
    known.catch(() => this.#addresses.delete(id));
    for (const [old, address] of this.#addresses) {
      if (this.#addresses.size <= KEPT) break;
      this.#addresses.delete(old);
      address.then(URL.revokeObjectURL, () => {});
    }
    return known;
  }

  close() {
    for (const address of this.#addresses.values()) address.then(URL.revokeObjectURL, () => {});
    this.#addresses.clear();
  }
}
