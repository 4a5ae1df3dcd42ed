/** Usage as the gateway counts it, made into what a chart and a table show. Pure. */

export interface Used {
  /** Of UTC: "2026-11-26". */
  readonly day: string;
  readonly model: string;
  /** Only for who sees all keys. */
  readonly key?: string;
  readonly name?: string | null;
  readonly requests: number;
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  /** Of those of prompts. Missing: its gateway is older, and doesn't tell. */
  readonly cached_tokens?: number;
}

export type Grouping = "model" | "key" | "day";
export type Measure = "tokens" | "requests";

export interface Total {
  readonly id: string;
  readonly name: string;
  readonly requests: number;
  readonly prompt: number;
  readonly completion: number;
  /** Part of `prompt`. */
  readonly cached: number;
}

export function tokensOf(total: Total): number {
  return total.prompt + total.completion;
}

/** One total for each model, key or day; those with the most tokens first, days by date. */
export function totalsBy(rows: readonly Used[], by: Grouping): readonly Total[] {
  const totals = new Map<string, Total>();
  for (const row of rows) {
    const id = row[by] ?? "";
    const before = totals.get(id);
    totals.set(id, {
      id,
      name: by === "key" ? (row.name ?? id) : id,
      requests: (before?.requests ?? 0) + row.requests,
      prompt: (before?.prompt ?? 0) + row.prompt_tokens,
      completion: (before?.completion ?? 0) + row.completion_tokens,
      cached: (before?.cached ?? 0) + (row.cached_tokens ?? 0),
    });
  }
  const found = [...totals.values()];
  if (by === "day") return found.sort((a, b) => b.id.localeCompare(a.id));
  return found.sort((a, b) => tokensOf(b) - tokensOf(a) || a.name.localeCompare(b.name));
}

/** All of it together. */
export function sum(rows: readonly Used[]): Total {
  const zero: Total = { id: "", name: "", requests: 0, prompt: 0, completion: 0, cached: 0 };
  return rows.reduce(
    (total, row) => ({
      ...total,
      requests: total.requests + row.requests,
      prompt: total.prompt + row.prompt_tokens,
      completion: total.completion + row.completion_tokens,
      cached: total.cached + (row.cached_tokens ?? 0),
    }),
    zero,
  );
}

/** The last `count` days of UTC, `today` the last of them. */
export function lastDays(count: number, today: Date): readonly string[] {
  const midnight = Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), today.getUTCDate());
  return Array.from({ length: count }, (_, index) =>
    new Date(midnight - (count - 1 - index) * 86_400_000).toISOString().slice(0, 10),
  );
}

export interface Series {
  readonly name: string;
  /** One for each day. */
  readonly values: readonly number[];
}

/** At most so many have a colour of their own; what is left is one series, "others". */
const SERIES = 4;

/** Bars that stand on each other, one list of values for each model or key; the greatest first. */
export function seriesOf(
  rows: readonly Used[],
  by: Exclude<Grouping, "day">,
  measure: Measure,
  days: readonly string[],
  others: string,
): readonly Series[] {
  const place = new Map(days.map((day, index) => [day, index]));
  const groups = new Map<string, { name: string; values: number[] }>();
  for (const row of rows) {
    const index = place.get(row.day);
    if (index === undefined) continue;
    const id = row[by] ?? "";
    const group = groups.get(id) ?? {
      name: by === "key" ? (row.name ?? id) : id,
      values: days.map(() => 0),
    };
    const value = measure === "tokens" ? row.prompt_tokens + row.completion_tokens : row.requests;
    group.values[index] = (group.values[index] ?? 0) + value;
    groups.set(id, group);
  }
  const all = [...groups.values()].sort((a, b) => total(b.values) - total(a.values));
  if (all.length <= SERIES) return all;
  const rest = all.slice(SERIES - 1);
  const values = days.map((_, index) => total(rest.map((one) => one.values[index] ?? 0)));
  return [...all.slice(0, SERIES - 1), { name: `${others} (${rest.length})`, values }];
}

function total(values: readonly number[]): number {
  return values.reduce((result, value) => result + value, 0);
}

/** Round values from 0 up to `greatest` or a little over it, for an axis. */
export function ticks(greatest: number, about = 4): readonly number[] {
  if (greatest <= 0) return [0, 1];
  const rough = greatest / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(
    1,
    [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? 1,
  );
  return Array.from({ length: Math.ceil(greatest / step) + 1 }, (_, index) => index * step);
}

/** A number short enough for an axis: "250", "12k", "3.5M". */
export function short(value: number): string {
  for (const [unit, name] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const)
    if (value >= unit) return `${Number((value / unit).toFixed(1))}${name}`;
  return String(value);
}
