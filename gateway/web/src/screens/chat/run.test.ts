import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { store } from "../../conversations/conversations";
import { ConversationStore } from "../../conversations/store";
import { forgetKey, key, keyRefused, removeBox, selectBox } from "../../gateway/connection";
import { chat as t } from "../../texts/en/chat";
import { draft, keepDraft } from "./draft";
import { takeAlong } from "./removed";
import { runs } from "./run";
import {
  asked,
  begin,
  eachWithItsNetwork,
  KITCHEN,
  OFFICE,
  piece,
  request,
} from "./testing/network";
import { keepUnsent, unsent } from "./unsent";

const { FileReader } = globalThis;

eachWithItsNetwork();

describe("a picture that the browser can't read any more", () => {
  class Broken extends FileReader {
    override readAsDataURL(): void {
      queueMicrotask(() => this.dispatchEvent(new Event("error")));
    }
  }

  it("is told of, and read again the next time", async () => {
    const images = [{ id: "i", mime: "image/png", blob: new Blob(["picture"]) }];
    vi.stubGlobal("FileReader", Broken);
    const first = begin(images);
    await first.ended;
    expect(asked).toEqual([]);
    expect(first.message()?.error).toEqual({ message: t.lostPicture, requestId: null });
    vi.stubGlobal("FileReader", FileReader);
    const second = begin(images);
    (await request(1)).answer([piece("Red.", "stop")], "end");
    await second.ended;
    expect(second.message()).toMatchObject({ content: "Red.", finish: "stop" });
  });
});

describe("a conversation that is deleted", () => {
  let end: () => void;

  beforeEach(() => {
    end = store.onRemove(takeAlong);
  });

  afterEach(() => {
    end();
    keepDraft(null, "");
  });

  it("takes its answer, draft and pictures along, and comes back with them", async () => {
    const { id, ended } = begin();
    const { answer, signal } = await request(1);
    answer([piece("It is ")], "open");
    await vi.waitFor(() => expect(runs.value.get(id)?.message.value.content).toBe("It is "));
    keepDraft(null, "of a new one");
    keepDraft(id, "And then?");
    keepUnsent(id, [{ id: "i", mime: "image/png", blob: new Blob(["picture"]) }]);
    const undo = await store.remove([id]);
    expect(signal.aborted).toBe(true);
    await ended;
    expect([draft(id), draft(null), unsent(id)]).toEqual(["", "of a new one", []]);
    await undo();
    await store.open(id);
    const messages = [...(store.opened.value?.messages.values() ?? [])];
    expect(messages.find((one) => one.role === "assistant")).toMatchObject({
      content: "It is ",
      finish: "stopped",
    });
    expect(draft(id)).toBe("And then?");
    expect(unsent(id)).toHaveLength(1);
  });

  it("with all others takes all along, but what isn't begun", async () => {
    const { id, ended } = begin();
    const { signal } = await request(1);
    keepDraft(null, "of a new one");
    keepDraft(id, "And then?");
    keepDraft("one-that-was-deleted-earlier", "What?");
    await store.removeAll();
    await ended;
    expect(signal.aborted).toBe(true);
    expect(Object.keys(localStorage).filter((one) => one.includes("draft"))).toHaveLength(1);
    expect(draft(null)).toBe("of a new one");
  });

  it("in another tab has its answer stopped, and keeps what was typed here", async () => {
    const { id, ended } = begin();
    await request(1);
    keepDraft(id, "And then?");
    await takeAlong({ ids: ["another"], here: false });
    expect(runs.value.has(id)).toBe(true);
    const other = new ConversationStore(() => "");
    await store.start();
    await store.flush();
    await other.remove([id]);
    await ended;
    expect(draft(id)).toBe("And then?");
    await other.close();
  });
});

describe("an answer under way", () => {
  it("is gone on with at its box, though the person went to another one", async () => {
    const { ended, message } = begin();
    (await request(1)).answer([piece("It is ")], "break");
    selectBox(OFFICE);
    const again = await request(2);
    expect([again.url, again.key]).toEqual([
      `${KITCHEN}/v1/chat/completions`,
      "Bearer kitchen-key",
    ]);
    again.answer([piece("there.", "stop")], "end");
    await ended;
    expect(message()).toMatchObject({ content: "It is there.", finish: "stop" });
  });

  it("ends when the person signs out of its box", async () => {
    const { ended, message } = begin();
    const { answer, signal } = await request(1);
    answer([piece("It is ")], "open");
    forgetKey();
    await ended;
    expect(signal.aborted).toBe(true);
    expect(message()?.finish).toBe("stopped");
  });

  it("ends when its box is forgotten", async () => {
    const { ended } = begin();
    const { signal } = await request(1);
    selectBox(OFFICE);
    removeBox(KITCHEN);
    await ended;
    expect(signal.aborted).toBe(true);
  });

  it("has another key asked for when its own is refused, at the box in use alone", async () => {
    const first = begin();
    (await request(1)).refuse(401);
    await first.ended;
    expect(keyRefused.value).toBe(key.value);
    keyRefused.value = null;
    const second = begin();
    const { refuse } = await request(2);
    selectBox(OFFICE);
    refuse(401);
    await second.ended;
    expect(keyRefused.value).toBeNull();
  });
});
