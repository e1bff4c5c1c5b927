// Something to look at: three people, their rooms, and a conversation of some days.

import { deflateSync } from "node:zlib";
import { crc32 } from "./crc32.mjs";
import { REACTIONS } from "./rules.mjs";

const PASSWORD = "correct horse";
const DAY_MS = 24 * 3_600_000;
const LINES = [
  "Good morning, everybody.", "Has anyone seen the key of the bicycle shed?", "It hangs behind the door, where it always hangs.",
  "@ada could you look at this before noon?", "The notes are at https://example.org/notes/2026/11?page=2#end.",
  "Two lines,\nin one message.", "`cargo test` is green again.", "```\nfn main() {\n    println!(\"hello\");\n}\n```",
  "سلام، حال شما چطور است؟", "今日はいい天気ですね。", "Thanks!", "I will be late: the 7:42 was cancelled, so I take the 8:12 and should be there by nine.",
  "@grace and @linus: lunch at half past twelve?", "👍", "See www.example.com or write to hello@example.com.",
  "That is the third time this week that it rains exactly when school ends, and exactly when I have left the umbrella at work.",
];

/** Fills `chat`: everybody's password is "correct horse". */
export function seedDemo(chat) {
  const people = ["ada", "grace", "linus"].map((name) => chat.register(name, PASSWORD));
  const [ada, grace, linus] = people;
  const { rate } = chat.options;
  chat.options.rate = 1_000_000;
  const rooms = [
    chat.rooms.get(1),
    chat.createRoom(ada, { name: "School runs", kind: "open", emoji: "🚲", topic: "Who takes whom, and when" }),
    chat.createRoom(grace, { name: "Recipes", kind: "open", emoji: "🍞" }),
    chat.createRoom(ada, { name: "Surprise party", kind: "private", emoji: "🎂", topic: "Not a word to Linus", members: ["grace"] }),
    chat.direct(ada, "grace").room, chat.direct(linus, "ada").room, chat.direct(ada, "ada").room,
  ];
  const old = chat.createRoom(grace, { name: "Summer 2025", kind: "open", emoji: "🏖️" });
  const sent = [];
  for (let number = 0; number < 200; number++) {
    const room = rooms[[0, 0, 0, 1, 1, 2, 3, 4, 0, 5][number % 10]];
    const author = people.filter((person) => chat.mayRead(person, room))[(number * 7) % (room.members?.size ?? 3)];
    const earlier = sent.filter((message) => message.room === room).at(-3);
    const id = chat.send(author, {
      content: LINES[number % LINES.length], room: room.id, ...(number % 9 === 8 && earlier ? { reply_to: earlier.id } : {}),
    });
    const message = chat.messages.get(id);
    message.created_at = Date.now() - Math.round(((200 - number) / 200) * 4 * DAY_MS);
    sent.push(message);
    if (number % 6 === 5) {
      const readers = people.filter((person) => chat.mayRead(person, room));
      for (const reader of readers.slice(number % 2)) chat.react(reader, { message: id, emoji: REACTIONS[number % 5], on: true });
    }
  }
  for (const [author, room, hue, alt] of [[grace, rooms[2], 30, "A loaf of bread"], [ada, rooms[0], 200, "The lake this morning"]]) {
    const { id } = chat.addImage(author, gradient(480, 320, hue));
    chat.send(author, { content: alt === "A loaf of bread" ? "First try" : "", room: room.id, image: id, alt });
  }
  chat.edit(grace, { message: sent.filter(({ user }) => user === grace).at(-1).id, content: "Edited: see you at nine." });
  chat.delete(linus, { message: sent.filter(({ user }) => user === linus).at(-2).id });
  chat.send(grace, { content: "What a summer.", room: old.id });
  chat.patchRoom(ada, old.id, { archived: true });
  for (const person of people) {
    for (const room of chat.readable(person)) chat.read(person, { room: room.id, id: Math.max(1, chat.lastId - 60) });
  }
  chat.options.rate = rate;
}

/** A PNG, so that there is a picture without a file. */
function gradient(width, height, hue) {
  const rows = Buffer.alloc(height * (1 + 3 * width));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * (1 + 3 * width) + 1 + 3 * x;
      rows[at] = (hue + (x * 120) / width) & 0xff;
      rows[at + 1] = (90 + (y * 140) / height) & 0xff;
      rows[at + 2] = (255 - hue + (x * 40) / width) & 0xff;
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0)),
  ]);
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const whole = Buffer.alloc(body.length + 8);
  whole.writeUInt32BE(data.length, 0);
  body.copy(whole, 4);
  whole.writeUInt32BE(crc32(body), body.length + 4);
  return whole;
}
