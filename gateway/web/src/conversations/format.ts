/**
 * The file of an export: `{"format": "llm-gateway-conversations", "version": 1, ...}`.
 *
 * docs/conversations.md tells of each field. Pure, apart from reading the images.
 */

import { BadFile, type Parsed } from "./parsed";
import { conversationFrom, isObject, messageFrom } from "./records";
import type { Whole } from "./database";
import { newId, type Image, type Message } from "./types";

export const FORMAT = "llm-gateway-conversations";
export const VERSION = 1;

/** The JSON of a conversation, with its images as data URLs. */
export async function written({ conversation, messages }: Whole): Promise<string> {
  const ordered = [...messages].sort((a, b) => a.created - b.created);
  return JSON.stringify({
    ...conversation,
    messages: await Promise.all(ordered.map(messageWritten)),
  });
}

/** Without its stream, which only its own browser can read on. */
async function messageWritten({
  conversation: _,
  stream: __,
  images,
  ...rest
}: Message): Promise<unknown> {
  return {
    ...rest,
    images: await Promise.all(
      images.map(async ({ id, mime, blob }) => ({ id, mime, data: await dataUrl(blob, mime) })),
    ),
  };
}

/**
 * A whole file, in parts: one conversation is worked on at a time, so the page stays awake.
 *
 * `onProgress` is told how many are done.
 */
export async function exported(
  wholes: AsyncIterable<Whole>,
  onProgress: (done: number) => void = () => undefined,
): Promise<Blob> {
  const parts: string[] = [];
  for await (const whole of wholes) {
    parts.push(`${parts.length === 0 ? "" : ",\n"}${await written(whole)}`);
    onProgress(parts.length);
  }
  const head = { format: FORMAT, version: VERSION, exported: new Date().toISOString() };
  const start = `${JSON.stringify(head).slice(0, -1)},"conversations":[\n`;
  return new Blob([start, ...parts, "\n]}\n"], { type: "application/json" });
}

/** What a file of ours holds; throws {@link BadFile} for one of a newer version. */
export function parseOwn(file: Readonly<Record<string, unknown>>): Parsed {
  const { version, conversations } = file;
  if (typeof version !== "number" || !Array.isArray(conversations)) throw new BadFile("unknown");
  if (version > VERSION) throw new BadFile("newer", version);
  const wholes = conversations.map(wholeFrom).filter((one) => one !== null);
  return { wholes, skipped: conversations.length - wholes.length };
}

function wholeFrom(value: unknown): Whole | null {
  const conversation = conversationFrom(value);
  if (conversation === null || !isObject(value) || !Array.isArray(value["messages"])) return null;
  const messages = value["messages"]
    .map((one: unknown) =>
      isObject(one)
        ? messageFrom({ ...one, conversation: conversation.id, images: imagesFrom(one["images"]) })
        : null,
    )
    .filter((one) => one !== null);
  return messages.length > 0 ? { conversation, messages } : null;
}

function imagesFrom(value: unknown): readonly Image[] {
  if (!Array.isArray(value)) return [];
  return value
    .map((one: unknown) => (isObject(one) ? imageFrom(one["data"]) : null))
    .filter((one) => one !== null);
}

/** The image of a data URL; `null` if it is none. */
export function imageFrom(url: unknown): Image | null {
  const found = typeof url === "string" ? /^data:(image\/[\w.+-]+);base64,/.exec(url) : null;
  if (typeof url !== "string" || !found?.[1]) return null;
  try {
    const bytes = Uint8Array.from(atob(url.slice(found[0].length)), (one) => one.charCodeAt(0));
    const mime = found[1];
    return { id: newId(), mime, blob: new Blob([bytes], { type: mime }) };
  } catch {
    return null; // no base64
  }
}

async function dataUrl(blob: Blob, mime: string): Promise<string> {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  // In pieces: a function takes only so many arguments.
  for (let from = 0; from < bytes.length; from += 0x8000)
    text += String.fromCharCode(...bytes.subarray(from, from + 0x8000));
  return `data:${mime};base64,${btoa(text)}`;
}
