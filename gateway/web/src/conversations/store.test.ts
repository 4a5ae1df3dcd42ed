import { describe, expect, it, vi } from "vitest";
import { asked, eachWithItsDatabase, said, shown, tab, titles } from "./testing/tabs";
import type { Message } from "./types";

eachWithItsDatabase();

describe("a conversation", () => {
  it("is kept when something is said in it, and not before", async () => {
    const store = await tab();
    store.openNew({ model: "smol", settings: { temperature: 0 } });
    await store.flush();
    expect((await tab()).list.value).toEqual([]);
    const id = store.opened.value?.conversation.id ?? "";
    store.change(id, { personality: "teacher" });
    store.put(said(id, null, "Where is the Nile?"));
    await store.flush();
    const again = await tab();
    expect(again.list.value).toMatchObject([
      {
        id,
        title: "Where is the Nile?",
        model: "smol",
        personality: "teacher",
        settings: { temperature: 0 },
        box: "https://box.example",
      },
    ]);
    await again.open(id);
    expect(shown(again)).toEqual(["Where is the Nile?"]);
  });

  it("keeps its images", async () => {
    const store = await tab();
    const { id } = store.openNew();
    const blob = new Blob(["picture"], { type: "image/png" });
    store.put(said(id, null, "What is it?", { images: [{ id: "i", mime: "image/png", blob }] }));
    await store.flush();
    const again = await tab();
    await again.open(id);
    const [message] = again.opened.value?.messages.values() ?? [];
    expect(await message?.images[0]?.blob.text()).toBe("picture");
  });

  it("loses no more than half a second of an answer under way", async () => {
    const store = await tab();
    const [question, answer] = await asked(store);
    const id = question?.conversation ?? "";
    const { finish: _, ...more } = said(id, answer?.id ?? "", "");
    store.put({ ...more, content: "On" });
    await store.flush();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    store.put({ ...more, content: "Once upon" });
    store.put({ ...more, content: "Once upon a time" });
    vi.advanceTimersByTime(500);
    vi.useRealTimers();
    const again = await tab();
    await vi.waitFor(async () => {
      expect((await again.textsOf(id)).map((one) => one.content)).toContain("Once upon a time");
    });
  });

  it("is written at once when the tab is hidden", async () => {
    const store = await tab();
    const [question] = await asked(store);
    const id = question?.conversation ?? "";
    store.change(id, { title: "Rivers" });
    dispatchEvent(new Event("pagehide"));
    const again = await tab();
    await vi.waitFor(async () => {
      await again.open(id);
      expect(again.opened.value?.conversation.title).toBe("Rivers");
    });
  });

  it("goes on while another one is open", async () => {
    const store = await tab();
    const [question, answer] = await asked(store);
    store.openNew();
    store.put({ ...(answer as Message), content: "There, as I said." });
    await store.open(question?.conversation ?? "");
    expect(shown(store)).toEqual(["Where?", "There, as I said."]);
  });

  it("comes first in the list when something is said, not when it is renamed", async () => {
    const store = await tab();
    vi.spyOn(Date, "now").mockReturnValueOnce(1).mockReturnValue(10);
    const [one] = await asked(store, "One");
    vi.spyOn(Date, "now").mockReturnValue(20);
    await asked(store, "Two");
    store.change(one?.conversation ?? "", { title: "Renamed", pinned: true });
    expect(titles(store)).toEqual(["Two", "Renamed"]);
    vi.spyOn(Date, "now").mockReturnValue(30);
    store.put(said(one?.conversation ?? "", one?.id ?? "", "more"));
    expect(titles(store)).toEqual(["Renamed", "Two"]);
  });

  it("that isn't there is missing", async () => {
    const store = await tab();
    await store.open("nowhere");
    expect(store.opened.value).toBeNull();
    expect(store.missing.value).toBe("nowhere");
    store.openNew();
    expect(store.missing.value).toBeNull();
  });
});

describe("deleting", () => {
  it("can be undone, with all that was said", async () => {
    const store = await tab();
    const [question] = await asked(store);
    await asked(store, "Another");
    const id = question?.conversation ?? "";
    const undo = await store.remove([id]);
    expect(titles(store)).toEqual(["Another"]);
    expect(await store.textsOf(id)).toEqual([]);
    await undo();
    await store.open(id);
    expect(shown(store)).toEqual(["Where?", "There."]);
    expect(titles(await tab()).sort()).toEqual(["Another", "Where?"]);
  });

  it("isn't undone by an answer that still comes", async () => {
    const store = await tab();
    const [, answer] = await asked(store);
    await store.remove([answer?.conversation ?? ""]);
    store.put({ ...(answer as Message), content: "late" });
    await store.flush();
    expect((await tab()).list.value).toEqual([]);
  });

  it("of all leaves nothing", async () => {
    const store = await tab();
    const [question] = await asked(store);
    await asked(store);
    await store.removeAll();
    expect(store.list.value).toEqual([]);
    const again = await tab();
    expect(again.list.value).toEqual([]);
    expect(await again.textsOf(question?.conversation ?? "")).toEqual([]);
  });
});

describe("two tabs", () => {
  it("see what the other does", async () => {
    const [one, two] = [await tab(), await tab()];
    const [question] = await asked(one);
    const id = question?.conversation ?? "";
    await vi.waitFor(() => expect(titles(two)).toEqual(["Where?"]));
    two.change(id, { title: "Rivers", pinned: true });
    await two.flush();
    await vi.waitFor(() =>
      expect(one.list.value).toMatchObject([{ title: "Rivers", pinned: true }]),
    );
    await two.remove([id]);
    await vi.waitFor(() => expect(one.list.value).toEqual([]));
  });

  it("with the same conversation lose nothing", async () => {
    const [one, two] = [await tab(), await tab()];
    const [question, answer] = await asked(one);
    const id = question?.conversation ?? "";
    await two.open(id);
    // Both ask at the same place.
    const mine = said(id, answer?.id ?? "", "Why?", { role: "user" });
    const theirs = said(id, answer?.id ?? "", "When?", { role: "user" });
    one.put(mine);
    two.put(theirs);
    await Promise.all([one.flush(), two.flush()]);
    await vi.waitFor(() => {
      for (const store of [one, two]) expect(store.opened.value?.messages.size).toBe(4);
    });
    expect(shown(one)).toEqual(["Where?", "There.", "Why?"]); // each stays on its own branch
    expect(shown(two)).toEqual(["Where?", "There.", "When?"]);
  });

  it("follow an answer that the other is given", async () => {
    const [one, two] = [await tab(), await tab()];
    const [question, answer] = await asked(one);
    const id = question?.conversation ?? "";
    await two.open(id);
    const next = said(id, answer?.id ?? "", "Why?", { role: "user" });
    one.put(next);
    const reply = said(id, next.id, "Becau");
    one.put(reply);
    await vi.waitFor(() => expect(shown(two).at(-1)).toBe("Becau"));
    one.put({ ...reply, content: "Because.", finish: "stop" });
    await vi.waitFor(() => expect(shown(two).at(-1)).toBe("Because."));
  });

  it("leave a new conversation of the other alone", async () => {
    const [one, two] = [await tab(), await tab()];
    two.openNew();
    await asked(one);
    await vi.waitFor(() => expect(titles(two)).toHaveLength(1));
    expect(two.opened.value).toMatchObject({ fresh: true, messages: new Map() });
  });

  it("keep what one deleted and the other goes on with", async () => {
    const [one, two] = [await tab(), await tab()];
    const [question, answer] = await asked(one);
    const id = question?.conversation ?? "";
    await two.open(id);
    await one.remove([id]);
    await vi.waitFor(() => expect(two.opened.value?.deleted).toBe(true));
    expect(shown(two)).toEqual(["Where?", "There."]);
    two.put(said(id, answer?.id ?? "", "Why?", { role: "user" }));
    await two.flush();
    await vi.waitFor(() => expect(titles(one)).toEqual(["Where?"]));
    await one.open(id);
    expect(shown(one)).toEqual(["Where?", "There.", "Why?"]);
  });

  it("see that the other deleted all", async () => {
    const [one, two] = [await tab(), await tab()];
    const [question] = await asked(one);
    await vi.waitFor(() => expect(titles(two)).toHaveLength(1));
    await two.open(question?.conversation ?? "");
    await one.removeAll();
    await vi.waitFor(() => expect(two.list.value).toEqual([]));
    expect(two.opened.value?.deleted).toBe(true);
  });
});
