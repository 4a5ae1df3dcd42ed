import { describe, expect, it } from "vitest";
import { lastDays, seriesOf, short, sum, ticks, totalsBy, tokensOf, type Used } from "./totals";

const DAYS = ["2026-11-25", "2026-11-26"];
const row = (day: string, model: string, key: string, tokens: number): Used => ({
  day,
  model,
  key,
  name: key === "k_gone" ? null : `${key}'s name`,
  requests: 1,
  prompt_tokens: tokens - 1,
  completion_tokens: 1,
});
const ROWS = [
  row("2026-11-25", "a", "k_1", 10),
  row("2026-11-26", "a", "k_1", 20),
  row("2026-11-26", "b", "k_gone", 100),
];

describe("totals", () => {
  it("of models, the most used first", () => {
    const found = totalsBy(ROWS, "model");
    expect(found.map((one) => [one.name, tokensOf(one), one.requests])).toEqual([
      ["b", 100, 1],
      ["a", 30, 2],
    ]);
  });
  it("of keys, by their names, or ids where nobody knows the name", () =>
    expect(totalsBy(ROWS, "key").map((one) => one.name)).toEqual(["k_gone", "k_1's name"]));
  it("of days, the last one first", () =>
    expect(totalsBy(ROWS, "day").map((one) => one.id)).toEqual([...DAYS].reverse()));
  it("of everything", () =>
    expect(sum(ROWS)).toMatchObject({ requests: 3, prompt: 127, completion: 3 }));
});

describe("bars", () => {
  it("have one value a day", () =>
    expect(seriesOf(ROWS, "model", "tokens", DAYS, "others")).toEqual([
      { name: "b", values: [0, 100] },
      { name: "a", values: [10, 20] },
    ]));
  it("count requests as well", () =>
    expect(seriesOf(ROWS, "key", "requests", DAYS, "others")[0]).toEqual({
      name: "k_1's name",
      values: [1, 1],
    }));
  it("put the least used together", () => {
    const rows = [1, 2, 3, 4, 5, 6].map((n) => row(DAYS[1] ?? "", `m${n}`, "k_1", 10 * n));
    const found = seriesOf(rows, "model", "tokens", DAYS, "others");
    expect(found.map((one) => one.name)).toEqual(["m6", "m5", "m4", "others (3)"]);
    expect(found[3]?.values).toEqual([0, 60]);
  });
});

it("knows the last days of UTC", () =>
  expect(lastDays(3, new Date("2026-03-01T00:30:00+02:00"))).toEqual([
    "2026-02-26",
    "2026-02-27",
    "2026-02-28",
  ]));

it.each([
  [0, [0, 1]],
  [3, [0, 1, 2, 3]],
  [87, [0, 50, 100]],
  [100, [0, 50, 100]],
  [7311, [0, 2000, 4000, 6000, 8000]],
])("ticks up to %d", (greatest, expected) => expect(ticks(greatest)).toEqual(expected));

it.each([
  [0, "0"],
  [999, "999"],
  [1500, "1.5k"],
  [2_000_000, "2M"],
])("%d is short %s", (value, text) => expect(short(value)).toBe(text));
