import { describe, expect, it } from "vitest";
import { failureOf } from "./failure";

describe("a failure", () => {
  it("is told without the log it ends with", () => {
    const message = "the model 'a' ended with 1. Its last lines: E no room | E srv: exiting.";
    expect(failureOf(message)).toEqual({
      said: "the model 'a' ended with 1.",
      log: ["E no room", "E srv: exiting."],
    });
  });

  it("is told as it is where there is no log", () =>
    expect(failureOf("no slot | is free")).toEqual({ said: "no slot | is free", log: [] }));
});
