import { describe, expect, it } from "vitest";
import { isPlain, LIMITS, readNumber, readSchema, requestFields } from "./settings";

describe("a request", () => {
  it("says nothing of what the model decides", () => {
    expect(requestFields({})).toEqual({});
    expect(requestFields({ system: "Be brief." })).toEqual({});
  });

  it("says what was set, zero and off included", () => {
    expect(requestFields({ temperature: 0, top_p: 0.5, max_tokens: 9, json: true })).toEqual({
      temperature: 0,
      top_p: 0.5,
      max_tokens: 9,
      response_format: { type: "json_object" },
    });
    expect(requestFields({ reasoning: false })).toEqual({
      chat_template_kwargs: { enable_thinking: false },
      reasoning_budget_tokens: 0,
    });
    expect(requestFields({ reasoning: true })).toEqual({
      chat_template_kwargs: { enable_thinking: true },
    });
  });

  it("carries a schema", () => {
    const schema = { type: "object" };
    expect(requestFields({ json: schema })["response_format"]).toMatchObject({
      type: "json_schema",
      json_schema: { schema },
    });
  });
});

describe("a field", () => {
  it.each([
    ["", undefined],
    ["  ", undefined],
    ["0", 0],
    ["0.7", 0.7],
    ["0,7", 0.7],
    [".5", 0.5],
    ["2", 2],
  ])("%j is %j", (text, value) => {
    expect(readNumber(text, LIMITS.temperature)).toEqual({ value });
  });

  it.each(["warm", "2.1", "-1", "1e3", "NaN", "Infinity", "0x1", "1 2"])(
    "%j is refused",
    (text) => {
      expect(readNumber(text, LIMITS.temperature)).toEqual({
        problem: "A number between 0 and 2, or nothing for the model's own.",
      });
    },
  );

  it("of tokens is whole and greater than nothing", () => {
    expect(readNumber("512", LIMITS.max_tokens)).toEqual({ value: 512 });
    for (const text of ["0", "1.5", "1000001"])
      expect(readNumber(text, LIMITS.max_tokens)).toEqual({
        problem: "A whole number between 1 and 1,000,000, or nothing for the model's own.",
      });
  });

  it("of a schema is an object", () => {
    expect(readSchema(" ")).toEqual({ value: undefined });
    expect(readSchema('{"type": "object"}')).toEqual({ value: { type: "object" } });
    expect(readSchema("{")).toHaveProperty("problem", expect.stringContaining("no JSON"));
    for (const text of ["[]", "1", "null", '"object"'])
      expect(readSchema(text)).toHaveProperty("problem", expect.stringContaining("object"));
  });
});

it("knows what is the model's own", () => {
  expect(isPlain({})).toBe(true);
  expect(isPlain({ temperature: 0 })).toBe(false);
  expect(isPlain({ reasoning: false })).toBe(false);
});
