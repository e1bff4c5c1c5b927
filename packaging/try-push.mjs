// Shows that a static binary finds a push service and connects to it, and to nothing inside: packaging/try-push BINARY
// Runs in a network of its own, where this is the name server and the push service, at an address of the Internet.

import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createServer } from "node:tls";

const [binary, directory] = process.argv.slice(2);
/** What each name resolves to; the second is a machine of the operator's own network. */
const NAMES = { "good.notify.windows.com": [17, 1, 2, 3], "evil.notify.windows.com": [10, 0, 0, 1] };
const PATIENCE_MS = 60_000;

const asked = new Set();
const names = createSocket("udp4");
names.on("message", (question, { port, address }) => {
  const labels = [];
  let at = 12;
  for (; question[at] > 0; at += 1 + question[at]) labels.push(question.toString("latin1", at + 1, at + 1 + question[at]));
  const name = labels.join(".");
  asked.add(name);
  const isV4 = question.readUInt16BE(at + 1) === 1;
  const answer = Buffer.from(question);
  answer.writeUInt16BE(0x8180, 2);
  const found = isV4 ? NAMES[name] : undefined;
  answer.writeUInt16BE(found ? 1 : 0, 6);
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...(found ?? [])]);
  names.send(found ? Buffer.concat([answer, record]) : answer, port, address);
});
await new Promise((done) => names.bind(53, "127.0.0.53", done));

/** Who has connected, and as whom: the certificate is of no authority that the server knows, and so that is where it ends. */
const greeted = [];
const service = createServer({
  key: readFileSync(`${directory}/key.pem`),
  cert: readFileSync(`${directory}/root.pem`),
  SNICallback: (name, done) => (greeted.push(name), done(null)),
});
service.on("tlsClientError", () => {});
await new Promise((done) => service.listen(443, "0.0.0.0", done));

const log = [];
const server = spawn(binary, ["--listen", "127.0.0.1:8080", "--db", `${directory}/chinwag.db`, "--push-contact", "mailto:me@chat.example"], {
  env: { RUST_LOG: "debug" },
  stdio: ["ignore", "pipe", "pipe"],
});
const ended = new Promise((done) => server.once("exit", (code, signal) => done(signal ?? code)));
createInterface(server.stderr).on("line", (line) => log.push(line));
const started = new Promise((done) => createInterface(server.stdout).once("line", () => done(true)));
if ((await Promise.race([started, ended])) !== true) {
  console.log(`FAILED: the server did not start\n${log.join("\n")}`);
  process.exit(1);
}

async function ask(method, path, body, token) {
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const response = await fetch(`http://127.0.0.1:8080${path}`, { method, headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.status === 204 ? null : response.json();
}

async function join(username) {
  await ask("POST", "/register", { username, password: "correct horse" });
  return (await ask("POST", "/login", { username, password: "correct horse" })).token;
}

const [ada, bob] = [await join("ada"), await join("bob")];
// The browser of RFC 8291's example.
const keys = { p256dh: "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4", auth: "BTBZMqHH6r4Tts7J_aSIgg" };
for (const name of Object.keys(NAMES)) await ask("PUT", "/push", { endpoint: `https://${name}/x`, keys }, bob);
await ask("POST", "/messages", { content: "hello" }, ada);

const wanted = [
  ["both names were asked for", () => Object.keys(NAMES).every((name) => asked.has(name))],
  ["the push service was connected to, by its name", () => greeted.includes("good.notify.windows.com")],
  ["its certificate was refused", () => log.some((line) => line.includes("good.") && /UnknownIssuer|certificate/.test(line))],
  ["the private address was not connected to", () => log.some((line) => line.includes("evil.") && line.includes("not public"))],
];
const start = Date.now();
while (wanted.some(([, holds]) => !holds()) && Date.now() - start < PATIENCE_MS && server.exitCode === null) {
  await new Promise((done) => setTimeout(done, 100));
}
let failed = false;
for (const [what, holds] of wanted) {
  console.log(`${holds() ? "ok" : "FAILED"}: ${what}`);
  failed ||= !holds();
}
server.kill("SIGTERM");
const end = await ended;
console.log(`${end === 0 ? "ok" : "FAILED"}: the server lived until it was told to stop (${end})`);
if (failed) console.log(log.join("\n"));
process.exit(failed || end !== 0 ? 1 : 0);
