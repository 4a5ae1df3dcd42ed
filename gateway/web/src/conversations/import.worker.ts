/** Reads a file beside the page, which stays awake while a hundred megabytes are parsed. */

import { parse } from "./parse";
import { BadFile } from "./parsed";
import type { Whole } from "./database";

export type Answer =
  | { readonly kind: "wholes"; readonly wholes: readonly Whole[] }
  | { readonly kind: "end"; readonly skipped: number }
  | { readonly kind: "bad"; readonly why: BadFile["why"]; readonly version: number };

/** Conversations handed over at once. */
const BATCH = 50;

addEventListener("message", (event: MessageEvent<File>) => void read(event.data));

async function read(file: File): Promise<void> {
  const tell = (answer: Answer): void => postMessage(answer);
  try {
    const text = await file.text().catch(() => {
      throw new BadFile("unreadable");
    });
    const { wholes, skipped } = parse(text);
    for (let from = 0; from < wholes.length; from += BATCH)
      tell({ kind: "wholes", wholes: wholes.slice(from, from + BATCH) });
    tell({ kind: "end", skipped });
  } catch (error) {
    const bad = error instanceof BadFile ? error : new BadFile("unreadable");
    tell({ kind: "bad", why: bad.why, version: bad.version });
  }
}
