/** What a chart shows, as arrays of numbers; no part of it touches the page. */

export interface Series {
  /** In words, with what it counts: "Memory of models". */
  readonly label: string;
  /** One for each time; `null` where nothing is known. */
  readonly values: readonly (number | null)[];
}

/** As many gaps between neighbours as this are a hole, through which no line may go. */
const HOLE = 2.5;

export interface Aligned {
  readonly times: readonly number[];
  readonly series: readonly Series[];
}

/** A `null` in each hole between `times` (seconds), which usually are `every` seconds apart. */
export function withHoles({ times, series }: Aligned, every: number): Aligned {
  const holes = times.flatMap((time, index) => {
    const before = times[index - 1];
    return before !== undefined && time - before > HOLE * every ? [index] : [];
  });
  if (holes.length === 0) return { times, series };
  const opened = <T>(list: readonly T[], at: (index: number) => T): T[] =>
    list.flatMap((one, index) => (holes.includes(index) ? [at(index), one] : [one]));
  return {
    times: opened(times, (index) => (times[index - 1] ?? 0) + every),
    series: series.map((one) => ({ ...one, values: opened(one.values, () => null) })),
  };
}

/** Each series on top of those before it. */
export function stacked(series: readonly Series[]): readonly (readonly (number | null)[])[] {
  let below: readonly (number | null)[] = [];
  return series.map(({ values }) => {
    below = values.map((value, index) =>
      value === null ? (below[index] ?? null) : value + (below[index] ?? 0),
    );
    return below;
  });
}

/** The places of `most` rows at most, evenly apart, the last one among them, the newest first. */
export function rowsFor(length: number, most: number): readonly number[] {
  const step = Math.max(Math.ceil(length / most), 1);
  const rows: number[] = [];
  for (let index = length - 1; index >= 0; index -= step) rows.push(index);
  return rows;
}

/** The newest value that is known, and the greatest one. */
export function extremes(values: readonly (number | null)[]): {
  readonly last: number | null;
  readonly most: number | null;
} {
  const known = values.filter((one) => one !== null);
  return {
    last: known.at(-1) ?? null,
    most: known.length > 0 ? known.reduce((a, b) => Math.max(a, b)) : null,
  };
}
