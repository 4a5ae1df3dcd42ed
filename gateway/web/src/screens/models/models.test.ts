import { describe, expect, it } from "vitest";
import { GatewayError } from "../../gateway/errors";
import type { Device } from "../../gateway/types";
import { problemsAt, problemsOf } from "./entry";
import type { LiveModel } from "./facts";
import { partsOf } from "./memory";
import {
  asObject,
  asWritten,
  personalitiesOf,
  tryBody,
  withPersonality,
  wrongName,
} from "./personality";
import { inOrder, matches, stateOf } from "./states";

function model(name: string, more: Partial<LiveModel> = {}): LiveModel {
  return {
    name,
    state: "stopped",
    state_seconds: 1,
    progress: null,
    in_flight: 0,
    queued: 0,
    slots: 1,
    load_seconds: null,
    starts: 0,
    deaths: 0,
    last_error: null,
    retry_in: null,
    memory: null,
    memory_held: null,
    devices: [],
    degraded: null,
    usage: {
      requests: 0,
      prompt_tokens: 0,
      cached_tokens: 0,
      completion_tokens: 0,
      tokens_per_second: null,
    },
    ...more,
  };
}

function device(total: number, free: number): Device {
  return { name: "GPU0", description: "", total, free, for_models: total, left: free };
}

describe("a device's memory", () => {
  it("is models, other programs and what is free", () => {
    const models = [
      model("small", { memory_on: { GPU0: 10 } }),
      model("large", { memory_on: { GPU0: 40, RAM: 5 } }),
      model("elsewhere", { memory_on: { RAM: 7 } }),
    ];
    expect(partsOf(device(100, 30), models)).toEqual([
      { kind: "model", name: "large", bytes: 40, share: 40 },
      { kind: "model", name: "small", bytes: 10, share: 10 },
      { kind: "others", name: "", bytes: 20, share: 20 },
      { kind: "free", name: "", bytes: 30, share: 30 },
    ]);
  });

  it("counts what a model that loads will take", () => {
    const parts = partsOf(device(100, 95), [model("m", { memory_on: { GPU0: 60 } })]);
    expect(parts.map((one) => [one.kind, one.bytes])).toEqual([
      ["model", 60],
      ["free", 40],
    ]);
  });

  it("never fills more than the bar", () => {
    const parts = partsOf(device(100, 50), [model("m", { memory_on: { GPU0: 150 } })]);
    expect(parts.reduce((sum, one) => sum + one.share, 0)).toBeCloseTo(100);
    expect(partsOf(device(0, 0), [])).toEqual([]);
  });
});

describe("states", () => {
  it.each([
    ["ready", {}, false, "ready"],
    ["ready", {}, true, "remote"],
    ["starting", {}, false, "loading"],
    ["backoff", {}, false, "failed"],
    ["stopped", {}, false, "unloaded"],
    ["stopped", { queued: 2 }, false, "waiting"],
    ["stopped", { start_failed: true, last_error: "gone" }, false, "failed"],
    ["stopped", { last_error: "died once, long ago" }, false, "unloaded"],
    ["stopping", {}, false, "draining"],
  ] as const)("%s %j (elsewhere: %s) is %s", (state, more, remote, expected) => {
    expect(stateOf(model("m", { state, ...more }), remote)).toBe(expected);
  });

  it("puts what is in memory first, and keeps the order of models.json else", () => {
    const all = [model("b"), model("a"), model("c", { state: "ready" })];
    expect(inOrder(all, () => false).map((one) => one.name)).toEqual(["c", "b", "a"]);
  });

  it("filters by name and state", () => {
    const ready = model("Qwen3-8B", { state: "ready" });
    expect(matches(ready, false, "memory", "qwen")).toBe(true);
    expect(matches(ready, false, "out", "")).toBe(false);
    expect(matches(ready, false, "all", "llama")).toBe(false);
    expect(matches(ready, false, "all", "quick", "The quick one")).toBe(true);
    expect(matches(ready, true, "elsewhere", "")).toBe(true);
  });
});

describe("personalities", () => {
  const entry = { params: {}, personalities: { a: "A", b: { prompt: "B", unlisted: true } } };

  it("are renamed in their place", () => {
    const changed = withPersonality(entry, "a", "z", "A2");
    expect([...personalitiesOf(changed)]).toEqual([
      ["z", "A2"],
      ["b", { prompt: "B", unlisted: true }],
    ]);
  });

  it("are added and removed, and leave no empty object", () => {
    expect([...personalitiesOf(withPersonality(entry, null, "c", "C")).keys()]).toEqual([
      "a",
      "b",
      "c",
    ]);
    expect(withPersonality({ personalities: { a: "A" } }, "a", "a", null)).toEqual({});
  });

  it("stay a text where they are no more than one", () => {
    expect(asWritten({ prompt: "text" }, "before")).toBe("text");
    expect(asWritten({ prompt: "text", reasoning: false }, "before")).toEqual({
      prompt: "text",
      reasoning: false,
    });
    expect(asWritten({ prompt: "text" }, { prompt: "before" })).toEqual({ prompt: "text" });
  });

  it("have names that clients can say", () => {
    const all = personalitiesOf(entry);
    expect(wrongName(" ", null, all)).toBe("needsName");
    expect(wrongName("None", null, all)).toBe("none");
    expect(wrongName("b", "a", all)).toBe("taken");
    expect(wrongName("a", "a", all)).toBeNull();
  });

  it("are tried as they stand, over nothing else", () => {
    const body = tryBody(
      "m",
      { prompt: "P", setParams: { temperature: 0 }, reasoning: false },
      "Q",
    );
    expect(body).toEqual({
      model: "m",
      personality: "none",
      messages: [
        { role: "system", content: "P" },
        { role: "user", content: "Q" },
      ],
      chat_template_kwargs: { enable_thinking: false },
      reasoning_budget_tokens: 0,
      temperature: 0,
      stream: true,
    });
  });

  it.each([
    ["off", { chat_template_kwargs: { enable_thinking: false }, reasoning_budget_tokens: 0 }],
    [true, { chat_template_kwargs: { enable_thinking: true } }],
    [64, { chat_template_kwargs: { enable_thinking: true }, reasoning_budget_tokens: 64 }],
    ["low", { chat_template_kwargs: { enable_thinking: true }, reasoning_effort: "low" }],
  ] as const)("are tried thinking as the gateway has them think: %s", (reasoning, wanted) => {
    expect(tryBody("m", { reasoning }, "Q")).toMatchObject(wanted);
  });

  it("may have names as Python writes them, which become those of the form", () => {
    const written = { prompt: "P", template_args: { a_b: 1 } };
    expect(asObject(written)).toEqual({ prompt: "P", templateArgs: { a_b: 1 } });
  });
});

it("finds the problems of a field", () => {
  const error = new GatewayError("wrong", 422, "invalid_entry", null, {
    problems: [
      { key: "a.b.params.ctxSize", message: "must be larger", allowed: "tokens" },
      { key: "a.b.aliases[1]", message: "is taken", allowed: "" },
      { key: "a.b.aliases[2]", message: "is empty", allowed: "" },
    ],
  });
  const problems = problemsOf(error, "a.b");
  expect(problemsAt(problems, ["params", "ctxSize"])).toEqual(["must be larger (tokens)"]);
  expect(problemsAt(problems, ["aliases"])).toEqual(["is taken", "is empty"]);
  expect(problemsAt(problems, ["ttl"])).toEqual([]);
});
