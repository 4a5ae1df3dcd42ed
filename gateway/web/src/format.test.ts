import { describe, expect, it } from "vitest";
import { ago, count, duration, size, sizeOf } from "./format";

describe("numbers as people read them", () => {
  it.each([
    [0, "0 MiB"],
    [50 * 2 ** 20, "50 MiB"],
    [0.26 * 2 ** 30, "266 MiB"],
    [2 ** 30 - 1, "1.0 GiB"],
    [24 * 2 ** 30, "24.0 GiB"],
    [128 * 2 ** 30, "128 GiB"],
  ])("size(%d) is %s", (bytes, words) => expect(size(bytes)).toBe(words));

  it.each([
    [12.34 * 2 ** 30, 24 * 2 ** 30, "12.3 of 24.0 GiB"],
    [50 * 2 ** 20, 24 * 2 ** 30, "50 MiB of 24.0 GiB"],
  ])("sizeOf(%d, %d) is %s", (part, whole, words) => expect(sizeOf(part, whole)).toBe(words));

  it.each([
    [0, "0.0 s"],
    [0.04, "< 0.1 s"],
    [0.05, "0.1 s"],
    [0.42, "0.4 s"],
    [9.96, "10 s"],
    [119, "119 s"],
    [180, "3 min"],
    [7500, "2 h 5 min"],
    [7200, "2 h"],
    [4 * 86400, "4 d"],
  ])("duration(%d) is %s", (seconds, words) => expect(duration(seconds)).toBe(words));

  it("separates thousands", () => expect(count(1234567.4)).toBe("1,234,567"));

  it("sees moments from now", () => {
    const now = new Date("2026-01-02T00:00:00Z");
    expect(ago(new Date("2026-01-01T23:57:00Z"), now)).toBe("3 min ago");
    expect(ago(new Date("2026-01-01T23:59:55Z"), now)).toBe("just now");
    expect(ago(new Date("2026-01-06T00:00:00Z"), now)).toBe("in 4 d");
  });
});
