import { describe, expect, it, vi } from "vitest";
import { asked, eachWithItsDatabase, tab } from "./testing/tabs";
import { Texts } from "./texts";
import type { Message } from "./types";

eachWithItsDatabase();

describe("all texts", () => {
  it("are read once, and then what changed", async () => {
    const store = await tab();
    const [question, answer] = (await asked(store)) as [Message, Message];
    const texts = new Texts(store);
    await texts.refresh();
    const id = question.conversation;
    expect(texts.texts.value.get(id)?.folded).toBe("where?\nthere.");
    store.put({ ...answer, content: "Thère!", finish: "stop" });
    await asked(store, "Another");
    await texts.refresh();
    expect(texts.texts.value.get(id)?.folded).toBe("where?\nthere!");
    expect(texts.texts.value.size).toBe(2);
    await store.remove([id]);
    await texts.refresh();
    expect([...texts.texts.value.keys()]).not.toContain(id);
    await store.removeAll();
    await texts.refresh();
    expect(texts.texts.value.size).toBe(0);
  });

  it("that could not be read are read the next time", async () => {
    const store = await tab();
    const [question] = await asked(store);
    const texts = new Texts(store);
    const fails = vi.spyOn(store, "texts").mockImplementation(() => {
      throw new DOMException("broken", "UnknownError");
    });
    await texts.refresh();
    expect(texts.texts.value.size).toBe(0);
    fails.mockRestore();
    await texts.refresh();
    expect([...texts.texts.value.keys()]).toEqual([question?.conversation]);
  });
});
