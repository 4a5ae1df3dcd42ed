/** A conversation with all that there may be in it, and what is read of files; for tests. */

import { Blob as NodeBlob } from "node:buffer";
import { beforeAll, vi } from "vitest";
import type { Whole } from "../database";
import { imageFrom } from "../format";
import { parse } from "../parse";
import { BadFile } from "../parsed";
import { path } from "../tree";
import type { Conversation, Message } from "../types";

/** Of happy-dom's, whose `text()` waits for a timer: 1,000 images take their time. */
export function withBlobsOfNode(): void {
  beforeAll(() => void vi.stubGlobal("Blob", NodeBlob));
}

export const PIXEL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

export function whole(id = "c"): Whole {
  const image = imageFrom(PIXEL);
  if (image === null) throw new Error("no image");
  const conversation: Conversation = {
    id,
    title: "Rivers / Africa",
    pinned: true,
    created: 1,
    updated: 9,
    model: "smol",
    personality: "teacher",
    settings: { system: "Be brief.", temperature: 0, json: { type: "object" }, reasoning: false },
    leaf: `${id}a2`,
    box: "https://box.example",
  };
  const messages: Message[] = [
    {
      id: `${id}q`,
      conversation: id,
      parent: null,
      role: "user",
      content: "What is it?",
      images: [image],
      created: 2,
    },
    {
      id: `${id}a1`,
      conversation: id,
      parent: `${id}q`,
      role: "assistant",
      content: "",
      images: [],
      error: { message: "It broke.", requestId: "r1" },
      created: 3,
    },
    {
      id: `${id}a2`,
      conversation: id,
      parent: `${id}q`,
      role: "assistant",
      content: "A *pixel*.",
      images: [],
      reasoning: "It is small.",
      toolCalls: [{ id: "t", name: "look", arguments: "{}" }],
      model: "smol",
      personality: "teacher",
      finish: "stop",
      stats: { firstTokenSeconds: 0.4, tokensPerSecond: 85, promptTokens: 9, cachedTokens: 0 },
      created: 4,
    },
  ];
  return { conversation, messages };
}

export async function* all(...wholes: Whole[]): AsyncGenerator<Whole> {
  yield* wholes;
}

export function badness(text: string): string {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof BadFile) return error.why;
    throw error;
  }
  return "none";
}

export const said = ({ conversation, messages }: Whole): (readonly [string, string])[] =>
  path(new Map(messages.map((one) => [one.id, one])), conversation.leaf).map(
    (one) => [one.role, one.content] as const,
  );
