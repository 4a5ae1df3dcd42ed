/** Whether what was read is what was written: records of a disk, a file, or another version. */

import type {
  Conversation,
  Image,
  Message,
  MessageError,
  Settings,
  Stats,
  Stream,
  ToolCall,
} from "./types";

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const isText = (value: unknown): value is string => typeof value === "string";
const isNumber = (value: unknown): value is number =>
  typeof value === "number" && Number.isFinite(value);
const isTextOrNull = (value: unknown): value is string | null => value === null || isText(value);

/** A conversation, or `null` if it is none. What it has beside the fields known here goes. */
export function conversationFrom(value: unknown): Conversation | null {
  if (!isObject(value)) return null;
  const { id, title, pinned, created, updated, model, personality, settings, leaf, box } = value;
  if (!isText(id) || id === "" || !isText(title) || !isNumber(created) || !isNumber(updated))
    return null;
  return {
    id,
    title,
    pinned: pinned === true,
    created,
    updated,
    model: isTextOrNull(model) ? model : null,
    personality: isTextOrNull(personality) ? personality : null,
    settings: settingsFrom(settings),
    leaf: isTextOrNull(leaf) ? leaf : null,
    box: isText(box) ? box : "",
  };
}

/** Settings, without those that can't be. */
export function settingsFrom(value: unknown): Settings {
  if (!isObject(value)) return {};
  const { system, temperature, top_p, max_tokens, json, reasoning } = value;
  return {
    ...(isText(system) && system !== "" && { system }),
    ...(isNumber(temperature) && { temperature }),
    ...(isNumber(top_p) && { top_p }),
    ...(isNumber(max_tokens) && { max_tokens }),
    ...((json === true || isObject(json)) && { json }),
    ...(typeof reasoning === "boolean" && { reasoning }),
  };
}

/** A message, or `null` if it is none. */
export function messageFrom(value: unknown): Message | null {
  if (!isObject(value)) return null;
  const { id, conversation, parent, role, content, images, created } = value;
  if (!isText(id) || id === "" || !isText(conversation) || !isText(content) || !isNumber(created))
    return null;
  if (role !== "user" && role !== "assistant") return null;
  const { reasoning, toolCalls, model, personality, finish, stream, error, stats } = value;
  return {
    id,
    conversation,
    parent: isText(parent) ? parent : null,
    role,
    content,
    images: Array.isArray(images) ? images.filter(isImage) : [],
    ...(isText(reasoning) && { reasoning }),
    ...(Array.isArray(toolCalls) && { toolCalls: toolCalls.filter(isToolCall) }),
    ...(isText(model) && { model }),
    ...(isText(personality) && { personality }),
    ...(isText(finish) && { finish }),
    ...(isStream(stream) && { stream }),
    ...(isError(error) && { error }),
    ...(isObject(stats) && { stats: statsFrom(stats) }),
    created,
  };
}

function isImage(value: unknown): value is Image {
  return (
    isObject(value) && isText(value["id"]) && isText(value["mime"]) && value["blob"] instanceof Blob
  );
}

function isToolCall(value: unknown): value is ToolCall {
  return (
    isObject(value) && isText(value["id"]) && isText(value["name"]) && isText(value["arguments"])
  );
}

function isStream(value: unknown): value is Stream {
  return (
    isObject(value) &&
    isText(value["id"]) &&
    isText(value["box"]) &&
    isNumber(value["seen"]) &&
    (value["finish"] === undefined || isText(value["finish"]))
  );
}

function isError(value: unknown): value is MessageError {
  return (
    isObject(value) &&
    isText(value["message"]) &&
    isTextOrNull(value["requestId"]) &&
    (value["unreachable"] === undefined || value["unreachable"] === true)
  );
}

const STATS = [
  "firstTokenSeconds",
  "tokensPerSecond",
  "promptTokens",
  "cachedTokens",
  "completionTokens",
  "thoughtSeconds",
] as const satisfies readonly (keyof Stats)[];

function statsFrom(value: Readonly<Record<string, unknown>>): Stats {
  return Object.fromEntries(
    STATS.map((name) => [name, value[name]]).filter(([, v]) => isNumber(v)),
  );
}
