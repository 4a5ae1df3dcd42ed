/** Lines of a log as they are kept, filtered and laid out; no part of it touches the page. */

/** How many lines are kept; the oldest go first. */
export const MOST = 10_000;
/** So many more are let in before the oldest are thrown out together. */
const SLACK = 1000;

export const LEVELS = ["debug", "info", "warning", "error"] as const;
export type Level = (typeof LEVELS)[number];

export interface Line {
  readonly number: number;
  readonly text: string;
  readonly level: Level;
}

/** Colours and movements of a terminal (ECMA-48, CSI), and what no line of a log shows. */
const CONTROL = /\u001b\[[0-?]*[ -/]*[@-~]|[\u0000-\u0008\u000b-\u001f\u007f]/g;
const OURS = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) /;
const LLAMA = /^\d+(?:\.\d+){1,3} ([DIWE]) /;
const NAMED: Readonly<Record<string, Level>> = {
  DEBUG: "debug",
  INFO: "info",
  WARNING: "warning",
  ERROR: "error",
  CRITICAL: "error",
  D: "debug",
  I: "info",
  W: "warning",
  E: "error",
};

/** The level that a line of the gateway or of a llama-server names; else `before`, as of a
 * traceback, whose lines belong to the one above. */
export function levelOf(text: string, before: Level): Level {
  const ours = OURS.exec(text);
  if (ours) return NAMED[ours[1] ?? ""] ?? "info";
  const theirs = LLAMA.exec(text);
  if (theirs) return NAMED[theirs[1] ?? ""] ?? "info";
  return /^\s|^\w*Error\b|^Traceback /.test(text) ? before : "info";
}

/** The newest {@link MOST} lines. */
export class LogBuffer {
  #lines: Line[] = [];
  #total = 0;

  /** How many have come, those that are gone among them. */
  get total(): number {
    return this.#total;
  }

  clear(): void {
    this.#lines = [];
  }

  add(texts: readonly string[]): void {
    let before = this.#lines.at(-1)?.level ?? "info";
    for (const raw of texts) {
      const text = raw.replace(CONTROL, "").replaceAll("\t", "    ");
      before = levelOf(text, before);
      this.#lines.push({ number: ++this.#total, text, level: before });
    }
    if (this.#lines.length > MOST + SLACK) this.#lines = this.#lines.slice(-MOST);
  }

  /** How many are kept. */
  get kept(): number {
    return Math.min(this.#lines.length, MOST);
  }

  /** Those that are kept, as they are now, as {@link filtered} has them. */
  matching(search: string, level: Level): readonly Line[] {
    return filtered(this.#lines.slice(-MOST), search, level);
  }
}

/** Those that hold `search`, in capitals or not, and are of `level` or above. */
export function filtered(lines: readonly Line[], search: string, level: Level): readonly Line[] {
  const wanted = search.toLowerCase();
  const least = LEVELS.indexOf(level);
  if (!wanted && least === 0) return lines;
  return lines.filter(
    (one) =>
      LEVELS.indexOf(one.level) >= least && (!wanted || one.text.toLowerCase().includes(wanted)),
  );
}

/** Where `search` stands in a line: pieces in turn outside and inside, the first one outside. */
export function pieces(text: string, search: string): readonly string[] {
  if (!search) return [text];
  const found: string[] = [];
  const lower = text.toLowerCase();
  const wanted = search.toLowerCase();
  // Where changing the case changes the length, places would be others.
  if (lower.length !== text.length) return [text];
  let from = 0;
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, from)) {
    found.push(text.slice(from, at), text.slice(at, at + wanted.length));
    from = at + wanted.length;
  }
  return [...found, text.slice(from)];
}

/** In how many rows of `columns` characters a line is shown; letters beyond ASCII may be wide. */
export function rowsOf(text: string, columns: number): number {
  let width = text.length;
  if (/[^\x00-\x7f]/.test(text)) width = 2 * width;
  return Math.max(1, Math.ceil(width / Math.max(columns, 1)));
}

/** Tops of lines, in rows, and at the end that of what would come next. */
export function topsOf(lines: readonly Line[], columns: number | null): Int32Array {
  const tops = new Int32Array(lines.length + 1);
  lines.forEach((line, index) => {
    tops[index + 1] = (tops[index] ?? 0) + (columns === null ? 1 : rowsOf(line.text, columns));
  });
  return tops;
}

/** The index of the line that the row `row` belongs to. */
export function lineAt(tops: Int32Array, row: number): number {
  let low = 0;
  let high = Math.max(tops.length - 2, 0);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((tops[middle] ?? 0) <= row) low = middle;
    else high = middle - 1;
  }
  return low;
}
