import { expect, it } from "vitest";
import { groups } from "./groups";
import type { Conversation } from "./types";

function conversation(id: string, updated: Date, pinned = false): Conversation {
  const time = updated.getTime();
  return {
    id,
    title: id,
    pinned,
    created: time,
    updated: time,
    model: null,
    personality: null,
    settings: {},
    leaf: null,
    box: "",
  };
}

it("days are those of the person's clock", () => {
  const now = new Date(2026, 2, 1, 0, 30);
  const list = [
    conversation("just now", new Date(2026, 2, 1, 0, 29)),
    conversation("before midnight", new Date(2026, 1, 28, 23, 59)),
    conversation("the day before", new Date(2026, 1, 27, 23, 59)),
    conversation("long ago", new Date(2020, 1, 1), true),
  ];
  const found = groups(list, now).map((one) => [one.name, one.conversations.map((c) => c.id)]);
  expect(found).toEqual([
    ["pinned", ["long ago"]],
    ["today", ["just now"]],
    ["yesterday", ["before midnight"]],
    ["earlier", ["the day before"]],
  ]);
  expect(groups([], now)).toEqual([]);
});
