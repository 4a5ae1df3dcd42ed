/** What a file holds, whichever of the known programs wrote it. Pure. */

import { FORMAT, parseOwn } from "./format";
import { parseForeign, parseLines } from "./foreign";
import { parseMarkdown } from "./markdown";
import { BadFile, type Parsed } from "./parsed";
import { isObject } from "./records";

/** Throws {@link BadFile}. */
export function parse(text: string): Parsed {
  if (text.startsWith("PK\u0003\u0004")) throw new BadFile("zip");
  const plain = text.replace(/^\ufeff/, "");
  const trimmed = plain.trim();
  if (trimmed === "") throw new BadFile("empty");
  const value = json(trimmed);
  const parsed =
    value === undefined
      ? (parseMarkdown(plain) ?? parseLines(lines(trimmed)))
      : isObject(value) && value["format"] === FORMAT
        ? parseOwn(value)
        : (parseLines([value]) ?? parseForeign(value));
  if (parsed === null) throw new BadFile("notJson");
  if (parsed.wholes.length + parsed.skipped === 0) throw new BadFile("empty");
  return parsed;
}

function json(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function lines(text: string): readonly unknown[] {
  const values = text.split("\n").filter((line) => line.trim() !== "");
  return values.map(json);
}
