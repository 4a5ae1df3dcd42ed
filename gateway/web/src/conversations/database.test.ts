import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { openDB } from "idb";
import { beforeEach, expect, it, vi } from "vitest";
import { InMemory, NAME, openDatabase, type Database } from "./database";
import type { Conversation, Message } from "./types";

const EVENTS = { onBlocked: vi.fn(), onOutdated: vi.fn(), onLost: vi.fn() };

beforeEach(() => {
  vi.stubGlobal("indexedDB", new IDBFactory());
  vi.clearAllMocks();
});

const CONVERSATION: Conversation = {
  id: "c",
  title: "One",
  pinned: false,
  created: 1,
  updated: 1,
  model: null,
  personality: null,
  settings: {},
  leaf: null,
  box: "",
};

const message = (id: string, conversation = "c"): Message => ({
  id,
  conversation,
  parent: null,
  role: "user",
  content: id,
  images: [],
  created: 1,
});

async function collected(database: Database): Promise<string[]> {
  const ids: string[] = [];
  for await (const batch of database.allMessages()) ids.push(...batch.map((one) => one.id));
  return ids;
}

it.each([
  ["IndexedDB", (): Promise<Database> => openDatabase(EVENTS)],
  ["memory", (): Promise<Database> => Promise.resolve(new InMemory())],
])("%s changes fields, and writes nothing of what is gone", async (_, open) => {
  const database = await open();
  const messages = Array.from({ length: 1201 }, (_, n) => message(`m${n}`));
  expect(await database.write({ added: [CONVERSATION], changed: new Map(), messages })).toEqual([]);
  const gone = await database.write({
    added: [],
    changed: new Map([
      ["c", { pinned: true }],
      ["gone", { pinned: true }],
    ]),
    messages: [message("x", "gone"), message("y", "gone too"), message("z")],
  });
  expect(gone).toEqual(["gone", "gone too"]);
  expect(await database.conversation("c")).toEqual({ ...CONVERSATION, pinned: true });
  expect(await database.conversation("gone")).toBeNull();
  expect((await collected(database)).toSorted()).toEqual(
    [...messages.map((one) => one.id), "z"].toSorted(),
  );
  expect((await database.messages(["z", "nowhere"])).map((one) => one.id)).toEqual(["z"]);
  await database.remove(["c", "nowhere"]);
  expect(await collected(database)).toEqual([]);
  expect(await database.conversations()).toEqual({ records: [], unreadable: 0 });
  database.close();
});

it("waits for a tab that holds an older version, and says so", async () => {
  const older = await openDB(NAME, 1, { blocking: () => undefined });
  const opening = openDatabase(EVENTS, 2);
  await vi.waitFor(() => expect(EVENTS.onBlocked).toHaveBeenCalledOnce());
  older.close();
  (await opening).close();
});

it("lets a newer version have the database", async () => {
  await openDatabase(EVENTS);
  (await openDatabase(EVENTS, 2)).close(); // or this would wait for ever
  expect(EVENTS.onOutdated).toHaveBeenCalledOnce();
  expect(EVENTS.onBlocked).not.toHaveBeenCalled();
});
