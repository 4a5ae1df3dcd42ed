import { openDB } from "idb";
import { IDBObjectStore } from "fake-indexeddb";
import { describe, expect, it, vi } from "vitest";
import { NAME } from "./database";
import { asked, eachWithItsDatabase, shown, tab, titles } from "./testing/tabs";

eachWithItsDatabase();

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
