/** What POST /v1/chat/completions is asked for the next answer of a conversation. Pure. */

import { requestFields } from "../../conversations/settings";
import type { Conversation, Image, Message } from "../../conversations/types";

/** `data:` addresses of images, by their id. */
export type Addresses = ReadonlyMap<Image["id"], string>;

interface Wanted {
  readonly conversation: Pick<Conversation, "personality" | "settings">;
  readonly model: string;
  /** Whether the model has personalities, so that "none" means something. */
  readonly personalities: boolean;
  /** From the first question to the one that is to be answered. */
  readonly path: readonly Message[];
  readonly images: Addresses;
  /** What of this answer has come already: the model is to go on behind it. */
  readonly begun?: string | undefined;
}

/** The body of the request, a stream with progress and usage. */
export function bodyOf(wanted: Wanted): Record<string, unknown> {
  const { conversation, model, personalities, path, images, begun } = wanted;
  const { settings, personality } = conversation;
  const messages: unknown[] = path.filter(isSaid).map((one) => said(one, images));
  if (settings.system?.trim()) messages.unshift({ role: "system", content: settings.system });
  if (begun !== undefined) messages.push({ role: "assistant", content: begun });
  const fields = requestFields(settings);
  return {
    model,
    messages,
    ...fields,
    // A model that would think first can't be handed the beginning of its answer.
    ...(begun !== undefined && { chat_template_kwargs: { enable_thinking: false } }),
    ...(personality !== null
      ? { personality }
      : personalities
        ? { personality: "none" }
        : undefined),
    stream: true,
    return_progress: true,
    stream_options: { include_usage: true },
  };
}

/** An answer of which nothing came is left out: two questions then follow each other. */
function isSaid(message: Message): boolean {
  return message.role === "user" || message.content !== "";
}

function said(message: Message, images: Addresses): Record<string, unknown> {
  if (message.images.length === 0) return { role: message.role, content: message.content };
  const parts: unknown[] = message.images
    .map((one) => images.get(one.id))
    .filter((one) => one !== undefined)
    .map((url) => ({ type: "image_url", image_url: { url } }));
  if (message.content) parts.unshift({ type: "text", text: message.content });
  return { role: message.role, content: parts };
}

/** Whether an answer that has come to `content` can be gone on with, instead of asked for again. */
export function canGoOn(
  content: string,
  settings: Conversation["settings"],
  remote: boolean,
): boolean {
  // A grammar would begin anew, and other servers take a begun answer for a whole one.
  return content.trim() !== "" && settings.json === undefined && !remote;
}
