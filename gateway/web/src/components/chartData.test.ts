import { describe, expect, it } from "vitest";
import { extremes, rowsFor, stacked, withHoles } from "./chartData";
import { timeTicks } from "./chartTimes";

describe("charts", () => {
  it("have no line through a time of which nothing is known", () => {
    const opened = withHoles(
      { times: [10, 20, 90, 100], series: [{ label: "a", values: [1, 2, 3, 4] }] },
      10,
    );
    expect(opened.times).toEqual([10, 20, 30, 90, 100]);
    expect(opened.series[0]?.values).toEqual([1, 2, null, 3, 4]);
    const whole = { times: [10, 20], series: [] };
    expect(withHoles(whole, 10)).toEqual(whole);
  });

  it("pile series up", () => {
    const series = [
      { label: "a", values: [1, null, 3] },
      { label: "b", values: [10, 20, null] },
    ];
    expect(stacked(series)).toEqual([
      [1, null, 3],
      [11, 20, 3],
    ]);
  });

  it("have a table of some rows, the newest first", () => {
    expect(rowsFor(5, 10)).toEqual([4, 3, 2, 1, 0]);
    expect(rowsFor(5, 2)).toEqual([4, 1]);
    expect(rowsFor(0, 2)).toEqual([]);
    expect(rowsFor(2017, 96).length).toBeLessThanOrEqual(96);
  });

  it("know the last value and the greatest", () => {
    expect(extremes([1, 5, null, 2, null])).toEqual({ last: 2, most: 5 });
    expect(extremes([null])).toEqual({ last: null, most: null });
  });

  it("say the day where it begins", () => {
    const midnight = new Date(2026, 10, 27, 0, 0).getTime() / 1000;
    expect(timeTicks([midnight - 3600, midnight], 3600)).toEqual(["23:00", "27 Nov"]);
    expect(timeTicks([midnight + 43_200], 86_400)).toEqual(["27 Nov"]);
  });
});
