// Where the server can be broken from outside: it calls these at its edges, and here they change nothing. `broken.mjs`
// puts others in their place.

export const hooks = {
  /** Before anything is served. */
  setup(_chat, _connections) {},
  /** A request, before it is routed. */
  asked(_request) {},
  /** The answer to a request, before it is written. */
  answered: (_request, answer) => answer,
  /** What a client sent over its connection. */
  heard: (frame, _connection) => frame,
  /** What is sent for a frame: it, none, or several. */
  told: (frame, _connection) => [frame],
  /** The code a connection is closed with. */
  closing: (code) => code,
  /** The payload of a WebSocket frame about to be written, or null for none. */
  written: (_opcode, payload) => payload,
  /** Whether a fragment may continue a message. */
  continues: () => true,
};
