import { describe, expect, it } from "vitest";
import type { ListedModel } from "../../gateway/types";
import { anybody, withoutPersonality } from "../../texts/en/chat";
import { calls, first, named, questionsFor, sees, talking } from "./choice";

function model(id: string, more: Partial<ListedModel> = {}): ListedModel {
  return { id, status: { value: "unloaded" }, aliases: [], ...more };
}

const models = [
  model("a", { aliases: ["gpt-4o"] }),
  model("b", { status: { value: "loaded" } }),
  model("c"),
];

it("calls a model as models.json has it for people, else by its name", () => {
  expect(calls(model("m", { name: "For talking" }))).toBe("For talking");
  expect(calls(model("m"))).toBe("m");
});

describe("a conversation begins with", () => {
  it.each([
    ["c", null, "c"],
    ["gpt-4o", null, "a"],
    ["gone", "c", "c"],
    [null, "gone", "b"],
    [null, null, "b"],
  ])("last %j, active %j: %j", (last, active, found) => {
    expect(first(models, last, { active, models: [] })?.id).toBe(found);
  });

  it("the first where none is loaded, and with none where there is none", () => {
    expect(first([model("a")], null, null)?.id).toBe("a");
    expect(first([], "a", null)).toBeUndefined();
  });
});

it("models that embed or rank are none to talk with", () => {
  const some = [
    model("chat", { capabilities: ["chat", "completion"] }),
    model("embed", { capabilities: ["embeddings"] }),
    model("unknown"),
  ];
  expect(talking(some).map((one) => one.id)).toEqual(["chat", "unknown"]);
});

it("a name comes before an alias", () => {
  expect(named([model("x", { aliases: ["y"] }), model("y")], "y")?.id).toBe("y");
});

it("a model sees what it takes in", () => {
  const architecture = { input_modalities: ["text", "image"], output_modalities: ["text"] };
  expect(sees(model("v", { architecture }))).toBe(true);
  expect(sees(model("t"))).toBe(false);
  // What models.json says of one that another server has.
  expect(sees(model("r", { capabilities: ["chat", "vision"] }))).toBe(true);
  expect(sees(model("b", { architecture, capabilities: ["chat"] }))).toBe(false);
});

it("questions suit who is asked", () => {
  expect(questionsFor(model("a"), null)).toBe(withoutPersonality);
  expect(questionsFor(model("a"), "geography teacher")[0]).toMatch(/Nile/);
  expect(questionsFor(model("a"), "Zq")).toBe(anybody);
  for (const name of ["qwen3-coder", "pirate", "poet"])
    expect(questionsFor(model(name), name)).toHaveLength(3);
});
