import { describe, expect, it, vi } from "vitest";
import { asked, collected, eachWithItsDatabase, shown, tab, titles } from "./testing/tabs";
import type { Message } from "./types";

eachWithItsDatabase();

describe("an import", () => {
  it("overwrites nothing", async () => {
    const store = await tab();
    const [question, answer] = (await asked(store)) as [Message, Message];
    const id = question.conversation;
    const [before] = await collected(store);
    // The same ids, with other words; and another conversation that has the ids of messages here.
    const conversation = store.list.value[0];
    if (!conversation || !before) throw new Error("nothing was kept");
    const foreign = {
      conversation: { ...conversation, title: "Other", updated: 5 },
      messages: [
        { ...question, content: "Foreign" },
        { ...answer, content: "words" },
      ],
    };
    const thief = {
      conversation: { ...conversation, id: "thief", title: "Thief", leaf: answer.id },
      messages: foreign.messages.map((one) => ({ ...one, conversation: "thief" })),
    };
    expect(await store.addAll([before, foreign, thief])).toEqual({ conversations: 2, known: 1 });
    expect(titles(store).sort()).toEqual(["Other", "Thief", "Where?"]);
    store.openNew();
    await store.open(id);
    expect(shown(store)).toEqual(["Where?", "There."]);
    await store.open("thief");
    expect(shown(store)).toEqual(["Foreign", "words"]);
    const again = await tab();
    expect(titles(again).sort()).toEqual(["Other", "Thief", "Where?"]);
    const other = again.list.value.find((one) => one.title === "Other");
    expect(other?.id).not.toBe(id);
    await again.open(other?.id ?? "");
    expect(shown(again)).toEqual(["Foreign", "words"]);
  });

  it("is seen by other tabs", async () => {
    const [one, two] = [await tab(), await tab()];
    await asked(one);
    const wholes = await collected(one);
    await one.removeAll();
    await one.addAll(wholes);
    await vi.waitFor(() => expect(titles(two)).toEqual(["Where?"]));
  });
});
