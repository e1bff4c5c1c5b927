// Starts a server, has Lighthouse look at it, and compares the scores. Performance is the best of three.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { CHROMIUM, FLAGS, Server } from "./harness.js";

const WANTED = new Map([
  ["performance", 98],
  ["accessibility", 100],
  ["best-practices", 100],
]);

const server = await Server.start();
const directory = mkdtempSync(join(tmpdir(), "chinwag-lighthouse-"));
const report = join(directory, "report.json");
const best = new Map();
try {
  for (let round = 0; round < 3; round += 1) {
    const flags = `--headless=new ${FLAGS.join(" ")}`;
    const categories = `--only-categories=${[...WANTED.keys()].join(",")}`;
    const options = ["--yes", "lighthouse@13.5.0", server.url, "--quiet", "--output=json", `--output-path=${report}`, categories, `--chrome-flags=${flags}`];
    execFileSync("npx", options, { env: { ...process.env, CHROME_PATH: CHROMIUM }, stdio: "inherit" });
    const { categories: found, audits } = JSON.parse(readFileSync(report, "utf8"));
    for (const [id, { score, auditRefs }] of Object.entries(found)) {
      best.set(id, Math.max(best.get(id) ?? 0, Math.round(score * 100)));
      const short = auditRefs.filter(({ id, weight }) => weight > 0 && audits[id].score !== null && audits[id].score < 1);
      console.log(`${id}: ${Math.round(score * 100)} ${short.map(({ id }) => `${id} ${audits[id].displayValue ?? ""}`).join("; ")}`);
    }
  }
} finally {
  await server.close();
  rmSync(directory, { recursive: true });
}
for (const [id, score] of WANTED) {
  if (best.get(id) >= score) continue;
  console.error(`${id} is ${best.get(id)}, wanted ${score}`);
  process.exitCode = 1;
}
