// The files of the web client, as `build.rs` compiles them in.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

const BETWEEN_PARTS = Buffer.from("\n");

/** What is below `folder`, by the path at which it is served; a folder `NAME.css` is one file. */
export function filesOf(folder) {
  const files = new Map();
  for (const name of readdirSync(folder, { recursive: true }).sort()) {
    const file = join(folder, name);
    if (!statSync(file).isFile()) continue;
    const path = name === "index.html" ? "/" : `/${name.replace(/\.css\/.*/, ".css")}`;
    const before = files.has(path) ? [files.get(path), BETWEEN_PARTS] : [];
    files.set(path, Buffer.concat([...before, readFileSync(file)]));
  }
  return files;
}
