/** The network as a test tells it to answer, and two boxes in it; for tests of answers. */

import { afterEach, beforeEach, expect, vi } from "vitest";
import { store } from "../../../conversations/conversations";
import { newId, type Message } from "../../../conversations/types";
import {
  addBox,
  boxes,
  keyRefused,
  removeBox,
  selectBox,
  useKey,
} from "../../../gateway/connection";
import { run, runs } from "../run";

export const KITCHEN = "https://kitchen.example";
export const OFFICE = "https://office.example";

export interface Asked {
  readonly url: string;
  readonly method: string;
  readonly headers: Headers;
  readonly key: string | null;
  readonly signal: AbortSignal;
  /** Answer with these pieces, and then end, break off, or leave open. */
  readonly answer: (
    pieces: readonly string[],
    then: "end" | "break" | "open",
    headers?: Record<string, string>,
  ) => void;
  readonly refuse: (status: number, code?: string | null) => void;
  /** Have its connection break before anything comes. */
  readonly fail: () => void;
}

export const asked: Asked[] = [];

/** An event of an answer. */
export function piece(content: string, finish: string | null = null): string {
  return `data: ${JSON.stringify({ choices: [{ delta: { content }, finish_reason: finish }] })}\n\n`;
}

/** The network, as a test tells it to answer. */
function fetched(url: string, init: RequestInit): Promise<Response> {
  return new Promise((resolve, reject) => {
    const signal = init.signal ?? new AbortController().signal;
    signal.addEventListener("abort", () => reject(signal.reason as Error));
    asked.push({
      url,
      method: init.method ?? "GET",
      headers: new Headers(init.headers),
      key: new Headers(init.headers).get("Authorization"),
      signal,
      answer: (pieces, then, headers = {}) => {
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
        resolve(new Response(body, { headers: { "X-Request-Id": "req_1", ...headers } }));
      },
      refuse: (status, code = "invalid_api_key") =>
        resolve(Response.json({ error: { message: "no", code } }, { status })),
      fail: () => reject(new TypeError("network error")),
    });
  });
}

/** The request of this number, once it has been made. */
export function request(number: number): Promise<Asked> {
  return vi.waitFor(
    () => {
      dispatchEvent(new Event("online")); // instead of waiting for the next attempt
      const one = asked[number - 1];
      if (one === undefined) throw new Error(`${asked.length} requests`);
      return one;
    },
    { timeout: 10_000 },
  );
}

/** Ask a question at the box in use, and begin to have it answered. */
export function begin(images: Message["images"] = []) {
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

/** Give each test of the file such a network, with two boxes that the person is signed in at. */
export function eachWithItsNetwork(): void {
  beforeEach(() => {
    asked.length = 0;
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
}
