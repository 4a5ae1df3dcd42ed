import { describe, expect, it } from "vitest";
import { changeOf, difference, differences, equal, patched, valueAt, withValueAt } from "./json";

describe("a merge patch", () => {
  it.each([
    [{ a: 1 }, { a: 2 }, { a: 2 }],
    [{ a: 1, b: 2 }, { a: 1 }, { b: null }],
    [{ p: { x: 1, y: 2 } }, { p: { x: 1, z: [3] } }, { p: { y: null, z: [3] } }],
    [{ a: [1, 2] }, { a: [1] }, { a: [1] }],
    [{ a: { b: 1 } }, { a: "text" }, { a: "text" }],
    [{ a: 1 }, { a: 1 }, {}],
    [{}, { a: {} }, { a: {} }],
  ])("of %j and %j is %j, and makes the one of the other", (before, after, patch) => {
    expect(difference(before, after)).toEqual(patch);
    expect(patched(before, patch)).toEqual(after);
    expect(changeOf(before, after)).toEqual({ method: "PATCH", body: patch });
  });

  it("can't say null: then the whole is written", () => {
    const after = { ttl: null, params: {} };
    expect(changeOf({ params: {} }, after)).toEqual({ method: "PUT", body: after });
  });

  it("leaves what somebody else changed beside it", () => {
    const read = { params: { temperature: 1 }, ttl: "5m" };
    const mine = { params: { temperature: 0.5 }, ttl: "5m" };
    const theirs = { params: { temperature: 1, topK: 3 } };
    expect(patched(theirs, difference(read, mine))).toEqual({
      params: { temperature: 0.5, topK: 3 },
    });
  });
});

describe("a place in an object", () => {
  it("is set and read", () => {
    const value = withValueAt({ a: 1 }, ["params", "ctxSize"], 512);
    expect(value).toEqual({ a: 1, params: { ctxSize: 512 } });
    expect(valueAt(value, ["params", "ctxSize"])).toBe(512);
    expect(valueAt(value, ["params", "toString"])).toBeUndefined();
    expect(valueAt(value, ["a", "b"])).toBeUndefined();
  });

  it("goes with the objects that it leaves empty, and no others", () => {
    expect(
      withValueAt({ meta: { unlisted: true }, b: {} }, ["meta", "unlisted"], undefined),
    ).toEqual({ b: {} });
  });

  it("keeps the order of keys", () => {
    expect(Object.keys(withValueAt({ a: 1, b: 2, c: 3 }, ["b"], 4))).toEqual(["a", "b", "c"]);
  });
});

it("lists differences down to the values", () => {
  expect(differences({ p: { x: 1, y: 2 }, q: 1 }, { p: { x: 3, y: 2 } })).toEqual([
    { path: ["p", "x"], before: 1, after: 3 },
    { path: ["q"], before: 1, after: undefined },
  ]);
});

it("compares by value, whatever the order of keys", () => {
  expect(equal({ a: [1, { b: null }], c: 1 }, { c: 1, a: [1, { b: null }] })).toBe(true);
  expect(equal({ a: undefined as never }, { b: 1 })).toBe(false);
  expect(equal([1, 2], [2, 1])).toBe(false);
});
