import { expect, it } from "vitest";
import type { WaitingModel } from "../../gateway/types";
import { NOTHING, type Answer } from "./answer";
import { stageOf } from "./stage";

const model: WaitingModel = {
  model: "smol",
  stage: "ready",
  percent: null,
  seconds: 90,
  queued: 3,
  queue: [
    { position: 1, seconds: 40 },
    { position: 2, seconds: 12 },
    { position: 3, seconds: 1 },
  ],
};

it.each<[Partial<Answer>, Partial<WaitingModel> | undefined, object]>([
  [{}, undefined, { kind: "sent" }],
  [{}, {}, { kind: "waiting", position: 2, of: 3 }],
  [{}, { queue: [], queued: 0 }, { kind: "sent" }],
  [{}, { stage: "starting", percent: 40 }, { kind: "loading", percent: 40 }],
  [{}, { stage: "starting" }, { kind: "loading", percent: null }],
  [{ reading: { read: 10, total: 40 } }, {}, { kind: "reading", percent: 25 }],
  [{ reasoning: "Hm" }, {}, { kind: "thinking" }],
  [{ reasoning: "Hm", content: "Yes" }, {}, { kind: "writing" }],
])("an answer of %j, of a model of which %j is told, is %j", (answer, told, stage) => {
  const waiting = told && { ...model, ...told };
  expect(stageOf({ ...NOTHING, ...answer }, waiting, 11)).toEqual(stage);
});
