// The style sheet as it is served, without its comments.

import { fileURLToPath } from "node:url";

import { filesOf } from "../../conformance/public.mjs";

const FILES = filesOf(fileURLToPath(new URL("../../../public/", import.meta.url)));

export const CSS = FILES.get("/app.css").toString().replace(/\/\*[\s\S]*?\*\//g, "");
