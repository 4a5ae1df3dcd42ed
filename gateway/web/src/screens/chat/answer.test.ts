import { describe, expect, it } from "vitest";
import { NOTHING, take, words, type Answer } from "./answer";

function of(...events: readonly unknown[]): Answer {
  return events.reduce<Answer>((answer, one) => take(answer, JSON.stringify(one)), NOTHING);
}

const delta = (fields: object, finish: string | null = null) => ({
  model: "smol",
  choices: [{ index: 0, finish_reason: finish, delta: fields }],
});

describe("an answer", () => {
  it("is put together out of its stream", () => {
    const reading = { ...delta({ role: "assistant", content: null }) };
    const found = of(
      { ...reading, prompt_progress: { total: 40, cache: 0, processed: 10, time_ms: 1 } },
      delta({ content: "The" }),
      delta({ content: " Nile" }),
      delta({}, "length"),
      {
        choices: [],
        usage: {
          prompt_tokens: 40,
          completion_tokens: 2,
          prompt_tokens_details: { cached_tokens: 8 },
        },
        timings: { cache_n: 9, predicted_per_second: 63.3 },
      },
    );
    expect(found).toMatchObject({
      content: "The Nile",
      finish: "length",
      model: "smol",
      reading: null,
      error: null,
      pieces: 2,
      stats: { promptTokens: 40, cachedTokens: 8, completionTokens: 2, tokensPerSecond: 63.3 },
    });
  });

  it("says how far its prompt is read, until it is written", () => {
    const event = { ...delta({}), prompt_progress: { total: 40, cache: 0, processed: 10 } };
    expect(of(event).reading).toEqual({ read: 10, total: 40 });
    expect(of(event, delta({})).reading).toEqual({ read: 10, total: 40 });
    expect(of(event, delta({ reasoning_content: "Hm" })).reading).toBeNull();
  });

  it("keeps thoughts apart, by either name", () => {
    const found = of(
      delta({ reasoning_content: "Let me" }),
      delta({ reasoning: " see" }),
      delta({ content: "Yes" }),
    );
    expect(found).toMatchObject({ reasoning: "Let me see", content: "Yes", pieces: 3 });
  });

  it("has calls that come in pieces", () => {
    const call = (index: number, more: object) => delta({ tool_calls: [{ index, ...more }] });
    const found = of(
      call(0, { id: "a", function: { name: "weather", arguments: "" } }),
      call(0, { function: { arguments: '{"city":' } }),
      call(1, { id: "b", function: { name: "time" } }),
      call(0, { function: { arguments: '"Cairo"}' } }),
      delta({}, "tool_calls"),
    );
    expect(found.toolCalls).toEqual([
      { id: "a", name: "weather", arguments: '{"city":"Cairo"}' },
      { id: "b", name: "time", arguments: "" },
    ]);
    expect(found.finish).toBe("tool_calls");
  });

  it("tells of what broke it, and keeps what had come", () => {
    const broken = of(delta({ content: "Half" }), {
      error: { message: "llama-server died", type: "server_error" },
    });
    expect(broken).toMatchObject({ content: "Half", error: "llama-server died" });
    expect(of({ error: "plainly" }).error).toBe("plainly");
    expect(of({ error: { code: 7 } }).error).toBe('{"code":7}');
    expect(take(NOTHING, "<html>").error).toBe("<html>");
  });

  it.each([null, 1, [], {}, { choices: null }, { choices: [null] }, { choices: [{ delta: 3 }] }])(
    "puts up with %j",
    (event) => {
      expect(of(event)).toMatchObject({ content: "", error: null, finish: null });
    },
  );
});

it("counts words", () => {
  expect(words("")).toBe(0);
  expect(words("  one two\n\nthree  ")).toBe(3);
});
