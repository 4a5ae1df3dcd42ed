import { describe, expect, it } from "vitest";
import { standing } from "./certificate";
import { load, memory, spanOf, speed } from "./charts";
import type { Certificate, History } from "./types";

const GIB = 2 ** 30;
const HISTORY: History = {
  range: 3600,
  every: 10,
  times: [1000, 1010, 1100],
  devices: ["CUDA0", "CUDA1", "CUDA2", "RAM"].map((name, index) => ({
    name,
    description: name,
    total: (index + 1) * 8 * GIB,
    used: [null, GIB, 2 * GIB],
  })),
  gateway_memory: [1, 1, 1],
  models_memory: [0, GIB, GIB],
  running: [0, 1, 1],
  waiting: [0, 0, 3],
  prompt_tokens_per_second: [0, 5, 0],
  completion_tokens_per_second: [0, 40, 41],
};

describe("the charts", () => {
  it("show memory in GiB, with a gap where nothing is known", () => {
    const shown = memory(HISTORY);
    expect(shown.series.map((one) => one.label)).toEqual([
      "CUDA0 in use",
      "CUDA1 in use",
      "CUDA2 in use",
      "Models",
    ]);
    expect(shown.times).toEqual([1000, 1010, 1020, 1100]);
    expect(shown.series[0]?.values).toEqual([null, 1, null, 2]);
    expect(shown.most).toBe(24);
    expect(speed(HISTORY).series[0]?.values).toEqual([0, 40, null, 41]);
    expect(load(HISTORY).series[1]?.values).toEqual([0, 0, null, 3]);
  });

  it("leave out what models take, and who waits, where it is nothing all the time", () => {
    const idle = { ...HISTORY, models_memory: [0, 0, null], waiting: [0, 0, 0] };
    expect(memory(idle).series.map((one) => one.label)).not.toContain("Models");
    expect(load(idle).series).toHaveLength(1);
  });

  it("span what was asked for, or what there is of it", () => {
    expect(spanOf(HISTORY)).toEqual([800, 1100]);
    expect(spanOf({ ...HISTORY, times: [1000, 9000] })).toEqual([5400, 9000]);
  });
});

describe("a certificate", () => {
  const made = (left: number | null, days = 90): Certificate => ({
    source: "own",
    issuer: "",
    names: [],
    not_before: new Date(0).toISOString(),
    not_after: new Date(days * 86_400_000).toISOString(),
    days_left: left,
    trusted_elsewhere: true,
    renewal: {
      authority: null,
      last_success: null,
      next_try: null,
      failures: 0,
      last_error: null,
    },
  });

  it.each([
    [made(40), "good"],
    [made(12), "soon"],
    [made(-1), "over"],
    [made(3, 6), "good"],
    [made(0, 6), "soon"],
    [made(null), "none"],
  ] as const)("%#: %s", (certificate, how) => expect(standing(certificate)).toBe(how));
});
