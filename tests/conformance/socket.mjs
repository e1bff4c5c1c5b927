// RFC 6455, the server's side: the handshake, frames in and out, and the close codes of the contract. No chat in here.

import { createHash } from "node:crypto";
import { EventEmitter } from "node:events";
import { hooks } from "./hooks.mjs";

export const FRAME_MAX_BYTES = 64 * 1024;
/** Past this much unsent output a connection counts as behind, and gets nothing more until it has drained. */
const OUTPUT_MAX_BYTES = 256 * 1024;
/** How long a peer may take to answer a close. */
const CLOSE_TIMEOUT_MS = 2_000;
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CONTINUATION = 0x0, TEXT = 0x1, BINARY = 0x2, CLOSE = 0x8, PING = 0x9, PONG = 0xa;

/** Whether these are the headers of an upgrade that can be answered (RFC 6455 4.2.1). */
export function isUpgrade({ headers }) {
  return (headers.upgrade ?? "").toLowerCase() === "websocket" && headers["sec-websocket-version"] === "13" &&
    /^[+/0-9A-Za-z]{22}==$/.test(headers["sec-websocket-key"] ?? "");
}

/** Events: `text` (a string), `drain`, `gone` (once, when the connection is over however it ended). */
export class Socket extends EventEmitter {
  /** When the peer was last heard. */
  heard = Date.now();
  #stream;
  #input = Buffer.alloc(0);
  #fragments = null;
  #closing = false;

  constructor(request, stream, head) {
    super();
    this.#stream = stream;
    const accept = createHash("sha1").update(request.headers["sec-websocket-key"] + GUID).digest("base64");
    stream.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
    stream.setNoDelay(true);
    stream.on("data", (bytes) => this.#read(bytes));
    stream.on("drain", () => this.emit("drain"));
    stream.on("error", () => stream.destroy());
    stream.on("end", () => stream.destroy());
    stream.on("close", () => this.emit("gone"));
    // What came with the handshake is read when the owner has had the chance to listen.
    if (head.length > 0) setImmediate(() => this.#read(head));
  }

  get isBehind() {
    return this.#stream.writableLength > OUTPUT_MAX_BYTES;
  }

  send(value) {
    if (!this.#closing) this.#write(TEXT, Buffer.from(JSON.stringify(value)));
  }

  ping() {
    if (!this.#closing) this.#write(PING, Buffer.alloc(0));
  }

  close(code, reason = "") {
    if (this.#closing) return;
    const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
    payload.writeUInt16BE(hooks.closing(code));
    payload.write(reason, 2);
    this.#write(CLOSE, payload);
    this.#closing = true;
    setTimeout(() => this.#stream.destroy(), CLOSE_TIMEOUT_MS).unref();
  }

  #write(opcode, content) {
    const payload = hooks.written(opcode, content);
    if (payload === null) return;
    let header;
    if (payload.length < 126) header = Buffer.from([0x80 | opcode, payload.length]);
    else if (payload.length < 65_536) {
      header = Buffer.from([0x80 | opcode, 126, 0, 0]);
      header.writeUInt16BE(payload.length, 2);
    } else {
      header = Buffer.alloc(10);
      header[0] = 0x80 | opcode;
      header[1] = 127;
      header.writeBigUInt64BE(BigInt(payload.length), 2);
    }
    this.#stream.write(Buffer.concat([header, payload]));
  }

  #read(bytes) {
    this.heard = Date.now();
    this.#input = this.#input.length === 0 ? bytes : Buffer.concat([this.#input, bytes]);
    while (!this.#stream.destroyed) {
      const frame = this.#next();
      if (frame === null) return;
      this.#take(frame);
    }
  }

  /** The next whole frame of the input, or null. A frame that must not be closes the connection (RFC 6455 5.2). */
  #next() {
    const input = this.#input;
    if (input.length < 2) return null;
    const opcode = input[0] & 0x0f;
    const final = (input[0] & 0x80) !== 0;
    let length = input[1] & 0x7f;
    let at = 2;
    const known = [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG].includes(opcode);
    const control = opcode >= CLOSE;
    if ((input[0] & 0x70) !== 0 || !known || (input[1] & 0x80) === 0 || (control && (!final || length > 125))) {
      return this.#fail(1002);
    }
    if (length === 126) {
      if (input.length < 4) return null;
      length = input.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (input.length < 10) return null;
      const wide = input.readBigUInt64BE(2);
      if (wide >> 63n) return this.#fail(1002);
      length = Number(wide);
      at = 10;
    }
    const before = this.#fragments?.bytes.length ?? 0;
    if (!control && before + length > FRAME_MAX_BYTES) return this.#fail(1009);
    if (input.length < at + 4 + length) return null;
    const mask = input.subarray(at, at + 4);
    const payload = Buffer.from(input.subarray(at + 4, at + 4 + length));
    for (let i = 0; i < length; i++) payload[i] ^= mask[i & 3];
    this.#input = input.subarray(at + 4 + length);
    return { opcode, final, payload };
  }

  #take({ opcode, final, payload }) {
    switch (opcode) {
      case PING:
        if (!this.#closing) this.#write(PONG, payload);
        return;
      case PONG:
        return;
      case CLOSE:
        return this.#answerClose(payload);
      case CONTINUATION:
        if (this.#fragments === null || !hooks.continues()) return void this.#fail(1002);
        this.#fragments.bytes = Buffer.concat([this.#fragments.bytes, payload]);
        break;
      default:
        if (this.#fragments !== null) return void this.#fail(1002);
        if (opcode === BINARY) return void this.#fail(1003);
        this.#fragments = { bytes: payload };
    }
    if (!final) return;
    const { bytes } = this.#fragments;
    this.#fragments = null;
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return void this.#fail(1007);
    }
    if (!this.#closing) this.emit("text", text);
  }

  #answerClose(payload) {
    if (!this.#closing) {
      const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      const sendable = (code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)) || (code >= 3000 && code < 5000);
      if (payload.length === 0) this.#write(CLOSE, Buffer.alloc(0));
      else this.close(sendable ? code : 1002);
      this.#closing = true;
    }
    this.#stream.end();
    setTimeout(() => this.#stream.destroy(), CLOSE_TIMEOUT_MS).unref();
  }

  #fail(code) {
    this.close(code);
    this.#input = Buffer.alloc(0);
    this.#stream.removeAllListeners("data");
    this.#stream.resume();
    return null;
  }
}
