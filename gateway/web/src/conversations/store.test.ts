import "fake-indexeddb/auto";
import { Blob as NodeBlob } from "node:buffer";
import { IDBFactory, IDBObjectStore } from "fake-indexeddb";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openDB } from "idb";
import { NAME, type Whole } from "./database";
import { ConversationStore } from "./store";
import { Texts } from "./texts";
import { path } from "./tree";
import { newId, type ConversationId, type Message, type MessageId } from "./types";

let tabs: ConversationStore[] = [];

async function tab(): Promise<ConversationStore> {
  const store = new ConversationStore(() => "https://box.example");
  tabs.push(store);
  await store.start();
  return store;
}

beforeEach(() => {
  vi.stubGlobal("indexedDB", new IDBFactory());
  vi.stubGlobal("Blob", NodeBlob); // the one that structuredClone knows
});

afterEach(async () => {
  await Promise.all(tabs.map((one) => one.close()));
  tabs = [];
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

let clock = 1000;

function said(
  conversation: ConversationId,
  parent: MessageId | null,
  content: string,
  more: Partial<Message> = {},
): Message {
  const role = parent === null ? "user" : "assistant";
  clock += 1;
  return { id: newId(), conversation, parent, role, content, images: [], created: clock, ...more };
}

/** A conversation of a question and its answer. */
async function asked(
  store: ConversationStore,
  question = "Where?",
  answer = "There.",
): Promise<Message[]> {
  const { id } = store.openNew({ model: "smol" });
  const first = said(id, null, question);
  const second = said(id, first.id, answer, { finish: "stop" });
  store.put(first);
  store.put(second);
  await store.flush();
  return [first, second];
}

const shown = (store: ConversationStore): string[] => {
  const opened = store.opened.value;
  return opened === null
    ? []
    : path(opened.messages, opened.conversation.leaf).map((one) => one.content);
};

const titles = (store: ConversationStore): string[] => store.list.value.map((one) => one.title);

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

describe("trouble", () => {
  it("without IndexedDB is told, and conversations live as long as the tab", async () => {
    vi.stubGlobal("indexedDB", undefined);
    const store = await tab();
    expect(store.trouble.value).toBe("not-kept");
    const [question] = await asked(store);
    const id = question?.conversation ?? "";
    store.openNew();
    await store.open(id);
    expect(shown(store)).toEqual(["Where?", "There."]);
    store.change(id, { title: "Rivers" });
    await store.flush();
    const undo = await store.remove([id]);
    await undo();
    expect(titles(store)).toEqual(["Rivers"]);
    await store.removeAll();
    expect(store.list.value).toEqual([]);
  });

  it("with a full disk is told, and what was said is written when there is room", async () => {
    const store = await tab();
    const put = vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(() => {
      throw new DOMException("full", "QuotaExceededError");
    });
    const [question] = await asked(store);
    expect(store.trouble.value).toBe("full");
    expect(shown(store)).toEqual(["Where?", "There."]);
    expect(titles(store)).toEqual(["Where?"]);
    put.mockRestore();
    await store.flush();
    expect(store.trouble.value).toBeNull();
    const again = await tab();
    await again.open(question?.conversation ?? "");
    expect(shown(again)).toEqual(["Where?", "There."]);
  });

  it("with a full disk ends with deleting, which makes room", async () => {
    const store = await tab();
    const [old] = await asked(store, "Old");
    const [older] = await asked(store, "Older");
    const put = vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(() => {
      throw new DOMException("full", "QuotaExceededError");
    });
    const [question] = await asked(store);
    await store.remove([older?.conversation ?? ""]);
    expect(store.trouble.value).toBe("full"); // it wasn't enough
    const remove = IDBObjectStore.prototype.delete;
    vi.spyOn(IDBObjectStore.prototype, "delete").mockImplementation(function (
      this: IDBObjectStore,
      key,
    ) {
      put.mockRestore();
      return remove.call(this, key);
    });
    await store.remove([old?.conversation ?? ""]);
    expect(store.trouble.value).toBeNull();
    expect(titles(await tab())).toEqual([question?.content]);
  });

  it("with a full disk ends with all being deleted", async () => {
    const store = await tab();
    const put = vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(() => {
      throw new DOMException("full", "QuotaExceededError");
    });
    await asked(store);
    await store.removeAll();
    expect(store.trouble.value).toBeNull();
    put.mockRestore();
  });

  it("to read a conversation is told, and it opens when it can be read", async () => {
    const store = await tab();
    const [question] = await asked(store);
    const id = question?.conversation ?? "";
    store.openNew();
    const get = vi.spyOn(IDBObjectStore.prototype, "get").mockImplementation(() => {
      throw new DOMException("broken", "UnknownError");
    });
    await store.open(id);
    expect([store.opened.value, store.unopened.value]).toEqual([null, true]);
    expect(store.trouble.value).toBe("unread");
    await store.again();
    expect(store.unopened.value).toBe(true);
    store.openNew(); // which needs nothing to be read
    expect(store.trouble.value).toBeNull();
    await store.open(id);
    get.mockRestore();
    await store.again();
    expect([store.unopened.value, store.trouble.value]).toEqual([false, null]);
    expect(shown(store)).toEqual(["Where?", "There."]);
  });

  it("to read the list is told, and it is read when it can be", async () => {
    await asked(await tab());
    const getAll = vi.spyOn(IDBObjectStore.prototype, "getAll").mockImplementation(() => {
      throw new DOMException("broken", "UnknownError");
    });
    const store = await tab();
    expect([store.ready.value, store.trouble.value]).toEqual([false, "unread"]);
    await store.start();
    expect(store.trouble.value).toBe("unread");
    getAll.mockRestore();
    await store.again();
    expect([store.ready.value, store.trouble.value]).toEqual([true, null]);
    expect(titles(store)).toEqual(["Where?"]);
  });

  it("to read what another tab did is told, and it is read when it can be", async () => {
    const [one, two] = [await tab(), await tab()];
    const get = vi.spyOn(IDBObjectStore.prototype, "get").mockImplementation(() => {
      throw new DOMException("broken", "UnknownError");
    });
    await asked(one);
    await vi.waitFor(() => expect(two.trouble.value).toBe("unread"), { timeout: 30_000 });
    expect(two.list.value).toEqual([]);
    get.mockRestore();
    await two.again();
    expect([titles(two), two.trouble.value]).toEqual([["Where?"], null]);
  });

  it("with records that can't be understood leaves them out, and the rest is there", async () => {
    const store = await tab();
    const [question] = await asked(store);
    const id = question?.conversation ?? "";
    const db = await openDB(NAME);
    await db.put("conversations", { id: "broken", title: 7 });
    await db.put("messages", { id: "broken", conversation: id, role: "robot" });
    db.close();
    const again = await tab();
    expect(titles(again)).toEqual(["Where?"]);
    expect(again.unreadable.value).toBe(1);
    await again.open(id);
    expect(shown(again)).toEqual(["Where?", "There."]);
    expect(again.unreadable.value).toBe(2);
  });

  it("with a newer version of the page in another tab is told", async () => {
    const store = await tab();
    const newer = await openDB(NAME, 2);
    expect(store.trouble.value).toBe("outdated");
    await asked(store);
    expect(store.trouble.value).toBe("outdated");
    expect(shown(store)).toEqual(["Where?", "There."]);
    newer.close();
  });
});

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

async function collected(store: ConversationStore): Promise<Whole[]> {
  const found: Whole[] = [];
  for await (const one of store.wholes()) found.push(one);
  return found;
}

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
