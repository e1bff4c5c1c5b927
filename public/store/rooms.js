// The rooms this person may read, and what is unread in them. No DOM.
//
//   rooms.get(id), rooms.all            ROOMs as in the protocol; `all` without order
//   rooms.open                          open and private ones, `rooms.direct`: the direct ones; newest first
//   rooms.nameOf(room), rooms.faceOf(room)     what it is called; whose face a direct one has
//   rooms.unread                        messages unread in all rooms that are not silenced
//   load(list), take(room), gone(id)    from `GET /rooms` and the frames `room`, `room_gone`
//   message, edit, delete, read         what the frames of these names change
//   markRead(id, messageId, left)       this person has seen up to here; fires `seen` to be told to the server. `left` are the
//                                       messages of others after it, if they are known
//
// Fires `change` (something a list of rooms shows is different), `seen` ({ room, id }), and `stale` when counts
// can only be had from the server.

import { t } from "../i18n/index.js";

export const LOBBY = 1;
/** The server counts no further. */
const UNREAD_MOST = 1_000;

export class Rooms extends EventTarget {
  #self;
  #rooms = new Map();

  constructor(self) {
    super();
    this.#self = self;
  }

  get all() {
    return [...this.#rooms.values()];
  }

  get open() {
    return this.all.filter(({ kind }) => kind !== "direct").sort(byActivity);
  }

  get direct() {
    return this.all.filter(({ kind }) => kind === "direct").sort(byActivity);
  }

  get unread() {
    return this.all.reduce((sum, room) => sum + (room.notify === "nothing" ? 0 : room.unread), 0);
  }

  get(id) {
    return this.#rooms.get(id);
  }

  nameOf(room) {
    if (!room) return "";
    if (room.kind === "direct") return this.faceOf(room) === this.#self ? t("rooms.notes") : this.faceOf(room);
    return room.name || t("rooms.lobby");
  }

  /** The other person of a direct room. */
  faceOf(room) {
    return room.members?.find((name) => name !== this.#self) ?? this.#self;
  }

  load(list) {
    const rooms = list.map(checked).filter(Boolean);
    this.#rooms = new Map(rooms.map((room) => [room.id, room]));
    this.#changed();
  }

  take(room) {
    const known = checked(room);
    if (!known) return;
    // What one has read here may be ahead of what the server was told.
    const before = this.#rooms.get(known.id);
    if (before && before.read > known.read) Object.assign(known, { read: before.read, unread: before.unread, mentioned: before.mentioned });
    this.#rooms.set(known.id, known);
    this.#changed();
  }

  gone(id) {
    if (!this.#rooms.delete(id)) return;
    this.#changed();
  }

  message(message) {
    const room = this.get(message.room);
    if (!room || message.id <= (room.last?.id ?? 0)) return;
    room.last = message;
    if (message.username !== this.#self && message.id > room.read) {
      room.unread = Math.min(UNREAD_MOST, room.unread + 1);
      if (this.isMentioned(message)) room.mentioned += 1;
    }
    this.#changed();
  }

  isMentioned = ({ mentions }) => Array.isArray(mentions) && mentions.some((name) => name === this.#self || name === "all");

  edit({ room: id, message, content }) {
    const room = this.get(id);
    if (room?.last?.id !== message) return;
    room.last = { ...room.last, content };
    this.#changed();
  }

  delete({ room: id, message }) {
    const room = this.get(id);
    if (!room) return;
    // Which message is the last one now, and whether one that is gone was unread, only the server knows.
    if (room.last?.id === message || (message > room.read && room.unread > 0)) this.dispatchEvent(new Event("stale"));
    if (room.last?.id === message) room.last = { ...room.last, content: "", deleted: true };
    this.#changed();
  }

  /** Another connection of this person has read. */
  read({ room: id, id: read }) {
    const room = this.get(id);
    if (!room || read <= room.read) return;
    room.read = read;
    if (read >= (room.last?.id ?? 0)) Object.assign(room, { unread: 0, mentioned: 0 });
    else this.dispatchEvent(new Event("stale"));
    this.#changed();
  }

  markRead(id, read, left = null) {
    const room = this.get(id);
    if (!room || read < room.read) return;
    const isAll = read >= (room.last?.id ?? 0);
    const unread = isAll ? 0 : (left?.length ?? room.unread);
    if (read === room.read && unread === room.unread) return;
    const mentioned = isAll ? 0 : (left?.filter(this.isMentioned).length ?? room.mentioned);
    Object.assign(room, { read, unread, mentioned });
    this.dispatchEvent(new CustomEvent("seen", { detail: { room: id, id: read } }));
    this.#changed();
  }

  /** Silenced or not, as chosen in a dialog. */
  setNotify(id, what) {
    const room = this.get(id);
    if (!room) return;
    room.notify = what;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

const activity = (room) => room.last?.id ?? room.id;
const byActivity = (a, b) => a.archived - b.archived || activity(b) - activity(a);

/** One room of another shape costs itself only. */
function checked(room) {
  if (!Number.isSafeInteger(room?.id) || !["open", "private", "direct"].includes(room.kind)) return null;
  const count = (value) => (Number.isSafeInteger(value) && value > 0 ? value : 0);
  return {
    ...room,
    members: Array.isArray(room.members) ? room.members : null,
    topic: typeof room.topic === "string" ? room.topic : "",
    archived: room.archived === true,
    last: room.last && typeof room.last.content === "string" ? room.last : null,
    read: count(room.read),
    unread: count(room.unread),
    mentioned: count(room.mentioned),
  };
}
