import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { store } from "../../conversations/conversations";
import { ConversationStore } from "../../conversations/store";
import { newId, type Message } from "../../conversations/types";
import {
  addBox,
  boxes,
  forgetKey,
  key,
  keyRefused,
  removeBox,
  selectBox,
  useKey,
} from "../../gateway/connection";
import { chat as t } from "../../texts/en/chat";
import { draft, keepDraft } from "./draft";
import { takeAlong } from "./removed";
import { run, runs } from "./run";
import { keepUnsent, unsent } from "./unsent";

const { FileReader } = globalThis;
const KITCHEN = "https://kitchen.example";
const OFFICE = "https://office.example";

interface Asked {
  readonly url: string;
  readonly key: string | null;
  readonly signal: AbortSignal;
  /** Answer with these pieces, and then end, break off, or leave open. */
  readonly answer: (pieces: readonly string[], then: "end" | "break" | "open") => void;
  readonly refuse: (status: number) => void;
}

let asked: Asked[];

function piece(content: string, finish: string | null = null): string {
  return `data: ${JSON.stringify({ choices: [{ delta: { content }, finish_reason: finish }] })}\n\n`;
}

/** The network, as a test tells it to answer. */
function fetched(url: string, init: RequestInit): Promise<Response> {
  return new Promise((resolve, reject) => {
    const signal = init.signal as AbortSignal;
    signal.addEventListener("abort", () => reject(signal.reason as Error));
    asked.push({
      url,
      key: new Headers(init.headers).get("Authorization"),
      signal,
      answer: (pieces, then) => {
        const body = new ReadableStream<Uint8Array>({
          start(controller) {
            signal.addEventListener("abort", () => controller.error(signal.reason));
            for (const one of pieces) controller.enqueue(new TextEncoder().encode(one));
            if (then === "end") controller.close();
          },
          pull(controller) {
            if (then === "break") controller.error(new TypeError("network error"));
          },
        });
        resolve(new Response(body, { headers: { "X-Request-Id": "req_1" } }));
      },
      refuse: (status) =>
        resolve(Response.json({ error: { message: "no", code: "invalid_api_key" } }, { status })),
    });
  });
}

/** The request of this number, once it has been made. */
function request(number: number): Promise<Asked> {
  return vi.waitFor(
    () => {
      const one = asked[number - 1];
      if (one === undefined) throw new Error(`${asked.length} requests`);
      return one;
    },
    { timeout: 30_000 },
  );
}

/** Ask a question at the box in use, and begin to have it answered. */
function begin(images: Message["images"] = []) {
  const conversation = store.openNew({ model: "smol" });
  const { id } = conversation;
  const created = Date.now();
  const question: Message = {
    id: newId(),
    conversation: id,
    parent: null,
    role: "user",
    content: "Where?",
    images,
    created,
  };
  store.put(question);
  const message: Message = {
    ...question,
    id: newId(),
    parent: question.id,
    role: "assistant",
    content: "",
    images: [],
  };
  const ended = run({
    conversation,
    model: "smol",
    personalities: false,
    remote: false,
    path: [question],
    message,
  });
  return { id, ended, message: () => store.opened.value?.messages.get(message.id) };
}

beforeEach(() => {
  asked = [];
  vi.stubGlobal("fetch", fetched);
  for (const [address, its] of [
    [OFFICE, "office-key"],
    [KITCHEN, "kitchen-key"],
  ] as const) {
    addBox({ address, name: address });
    selectBox(address);
    useKey(its);
  }
});

afterEach(async () => {
  for (const one of runs.value.values()) one.stop();
  await vi.waitFor(() => expect(runs.value.size).toBe(0));
  keyRefused.value = null;
  for (const { address } of boxes.value) removeBox(address);
  vi.unstubAllGlobals();
});

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
    dispatchEvent(new Event("online")); // instead of waiting for the next attempt
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
