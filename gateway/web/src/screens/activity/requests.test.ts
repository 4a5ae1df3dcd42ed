import { describe, expect, it } from "vitest";
import type { Ended, News } from "./requests";
import {
  isTooLong,
  LONGEST_PAGE,
  NO_FILTERS,
  queryOf,
  resultOf,
  segmentsOf,
  shortened,
  withNews,
  withOlder,
} from "./requests";

const ended = (...ids: number[]): Ended[] =>
  ids.map((id) => ({ id: String(id), status: 200 }) as unknown as Ended);
const news = (ids: number[], next?: string | null): News => ({
  under_way: [],
  not_shown: 0,
  ended: ended(...ids),
  ...(next === undefined ? {} : { next }),
  lost: 0,
  problem: null,
});
const ids = (list: { ended: readonly Ended[] }): string => list.ended.map((one) => one.id).join();

describe("a list of ended requests", () => {
  const list = withNews(null, news([5, 4, 3], "3"));

  it("begins with the first event", () => expect([ids(list), list.next]).toEqual(["5,4,3", "3"]));
  it("takes in what is new", () => expect(ids(withNews(list, news([7, 6])))).toBe("7,6,5,4,3"));
  it("is the same where nothing is new", () => expect(withNews(list, news([]))).toBe(list));
  it("goes on behind a break that it knows both sides of", () => {
    const after = withNews(list, news([7, 6, 5], "5"));
    expect([ids(after), after.next]).toEqual(["7,6,5,4,3", "3"]);
  });
  it("begins anew where some may be missing", () => {
    const after = withNews(list, news([9, 8, 7], "7"));
    expect([ids(after), after.next]).toEqual(["9,8,7", "7"]);
  });
  it("takes in what could not be read before, in its place", () => {
    const after = withNews(list, news([6, 5, 4, 3, 2, 1], "1"));
    expect([ids(after), after.next]).toEqual(["6,5,4,3,2,1", "1"]);
  });
  it("grows by older ones", () => {
    const after = withOlder(list, news([3, 2, 1], null));
    expect([ids(after), after.next]).toEqual(["5,4,3,2,1", null]);
  });
});

describe("a list that has grown for days", () => {
  const down = (from: number, rows: number): number[] =>
    Array.from({ length: rows }, (_, row) => from - row);
  const most = 2 * LONGEST_PAGE;
  const long = withNews(null, news(down(3000, most + 1), "end"));

  it("is too long, but not because somebody wanted to see older ones", () => {
    expect(isTooLong(long)).toBe(true);
    const short = withNews(null, news(down(3000, most), "end"));
    expect(isTooLong(short)).toBe(false);
    const older = withOlder(short, news(down(2000, 50), "later"));
    expect(isTooLong(older)).toBe(false);
    expect(isTooLong(withNews(older, news([3001])))).toBe(true);
  });
  it("keeps the newest, with what ended meanwhile, and ends where the page does", () => {
    const page = news(down(3000, LONGEST_PAGE), "2501");
    const after = shortened(withNews(long, news([3002, 3001])), page);
    expect(ids(after)).toBe(down(3002, LONGEST_PAGE + 2).join());
    expect(after.next).toBe("2501");
  });
  it("takes a page that is newer than the list", () => {
    const page = news(down(3001, LONGEST_PAGE), "2502");
    const after = shortened(long, page);
    expect(ids(after)).toBe(down(3001, LONGEST_PAGE).join());
    expect(ids(withNews(after, news([3002, 3001])))).toBe(down(3002, LONGEST_PAGE + 1).join());
  });
});

describe("results", () => {
  it.each([
    [200, null, "ok"],
    [409, "cancelled", "cancelled"],
    [499, null, "left"],
    [400, "context_length_exceeded", "refused"],
    [502, "backend_error", "failed"],
  ])("%d %s is %s", (status, code, result) => expect(resultOf({ status, code })).toBe(result));
});

it("leaves empty filters out", () => {
  const filters = { ...NO_FILTERS, model: "a b:c", status: "4xx" };
  expect(queryOf(filters, { limit: "50" })).toBe("model=a+b%3Ac&status=4xx&limit=50");
});

it("shares a bar among the parts that took time", () => {
  const timings = { queue: 0, load: 3, prefill: null, generation: 1 };
  expect(segmentsOf(timings)).toEqual([
    { part: "load", seconds: 3, share: 75 },
    { part: "generation", seconds: 1, share: 25 },
  ]);
  expect(segmentsOf({ queue: 0, load: 0, prefill: null, generation: null })).toEqual([]);
});
