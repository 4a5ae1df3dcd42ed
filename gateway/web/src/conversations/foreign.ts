/**
 * Conversations of other programs, as their own sources write them:
 *
 * - llama.cpp's page: `tools/ui/src/lib/types/database.d.ts` (`ExportedConversations`), and the
 *   JSON Lines of its newer versions, a `session` and its `message`s a line;
 * - Open WebUI: `src/lib/utils/index.ts`, an array of `{title, chat: {history}}`;
 * - ChatGPT's `conversations.json`, as Open WebUI's `convertOpenAIChats` and others read it: an
 *   array of `{title, mapping, current_node}`.
 *
 * What these hold beside texts, thoughts and images in the file (tools' results, other
 * attachments) is left out. Pure.
 */

import type { Whole } from "./database";
import { imageFrom } from "./format";
import { adopted, BadFile, nearestShown, shownOf, type Node, type Parsed } from "./parsed";
import { isObject } from "./records";
import { newId, type Image, type Settings } from "./types";

type Json = Readonly<Record<string, unknown>>;

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const textOrNull = (value: unknown): string | null =>
  typeof value === "string" && value !== "" ? value : null;
const objects = (value: unknown): readonly Json[] =>
  Array.isArray(value) ? value.filter(isObject) : [];

/** A moment in milliseconds: those before 1973 in them are seconds. */
function moment(value: unknown): number | null {
  if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) return null;
  return Math.round(value < 1e11 ? value * 1000 : value);
}

/** What an array, or one of them alone, holds. */
export function parseForeign(value: unknown): Parsed {
  const all = Array.isArray(value) ? value : [value];
  if (all.length === 0) throw new BadFile("empty");
  const read = all.map((one: unknown) => readerOf(one)?.(one as Json));
  if (read.every((one) => one === undefined)) throw new BadFile("unknown");
  const wholes = read.filter((one) => one !== undefined && one !== null);
  return { wholes, skipped: all.length - wholes.length };
}

function readerOf(value: unknown): ((value: Json) => Whole | null) | undefined {
  if (!isObject(value)) return undefined;
  if (isObject(value["conv"]) && Array.isArray(value["messages"])) return fromLlamaCpp;
  if (isObject(value["chat"])) return fromOpenWebui;
  if (isObject(value["mapping"])) return fromChatGpt;
  return undefined;
}

/** The JSON Lines of llama.cpp's page; `null` if the lines are none of them. */
export function parseLines(lines: readonly unknown[]): Parsed | null {
  const sessions: { conv: Json; messages: unknown[] }[] = [];
  for (const line of lines) {
    if (!isObject(line)) return null;
    if (line["type"] === "session") sessions.push({ conv: line, messages: [] });
    else if (line["type"] === "message") sessions.at(-1)?.messages.push(line["message"]);
  }
  return sessions.length > 0 ? parseForeign(sessions) : null;
}

function fromLlamaCpp({ conv, messages }: Json): Whole | null {
  if (!isObject(conv)) return null;
  const id = text(conv["id"]) || newId();
  const said = objects(messages);
  const nodes = said.map((one): Node => {
    const role = one["role"];
    const shown = one["type"] !== "root" && (role === "user" || role === "assistant");
    const thoughts = textOrNull(one["reasoningContent"]) ?? textOrNull(one["thinking"]);
    const model = textOrNull(one["model"]);
    const extra = objects(one["extra"]);
    // Text files are what the model read, so they stand in the question.
    const attached = extra.map((part) => text(part["content"])).filter(Boolean);
    return {
      id: text(one["id"]),
      parent: textOrNull(one["parent"]),
      message: shown
        ? {
            role,
            content: [text(one["content"]), ...attached].filter(Boolean).join("\n\n"),
            images: extra.map((part) => imageFrom(part["base64Url"])).filter(isImage),
            ...(thoughts !== null && { reasoning: thoughts }),
            ...(model !== null && { model }),
            ...(role === "assistant" && { finish: "stop" }),
            created: moment(one["timestamp"]) ?? 0,
          }
        : null,
    };
  });
  const system = said.find((one) => one["role"] === "system" && one["type"] !== "root");
  const all = new Map(nodes.map((one) => [one.id, one]));
  return adopted({
    id,
    title: text(conv["name"]),
    created: null,
    updated: moment(conv["lastModified"]),
    pinned: conv["pinned"] === true,
    leaf: nearestShown(all, textOrNull(conv["currNode"])),
    settings: settingsWith(system?.["content"]),
    messages: shownOf(nodes, id),
  });
}

function fromOpenWebui(value: Json): Whole | null {
  const chat = value["chat"];
  if (!isObject(chat)) return null;
  const id = text(value["id"]) || newId();
  const history = isObject(chat["history"]) ? chat["history"] : {};
  const said = isObject(history["messages"])
    ? objects(Object.values(history["messages"]))
    : objects(chat["messages"]);
  const nodes = said.map((one): Node => {
    const role = one["role"];
    const model = textOrNull(one["model"]);
    const { content, reasoning } = withoutDetails(text(one["content"]));
    const pictures = objects(one["files"]).filter((part) => part["type"] === "image");
    return {
      id: text(one["id"]),
      parent: textOrNull(one["parentId"]),
      message:
        role === "user" || role === "assistant"
          ? {
              role,
              content,
              images: pictures.map((part) => imageFrom(part["url"])).filter(isImage),
              ...(reasoning !== "" && { reasoning }),
              ...(role === "assistant" && { finish: "stop" }),
              ...(model !== null && { model }),
              created: moment(one["timestamp"]) ?? 0,
            }
          : null,
    };
  });
  const params = isObject(chat["params"]) ? chat["params"] : {};
  const all = new Map(nodes.map((one) => [one.id, one]));
  return adopted({
    id,
    title: text(value["title"]) || text(chat["title"]),
    created: moment(value["created_at"]) ?? moment(chat["timestamp"]),
    updated: moment(value["updated_at"]),
    pinned: value["pinned"] === true,
    leaf: nearestShown(all, textOrNull(history["currentId"])),
    settings: settingsWith(chat["system"] ?? params["system"]),
    messages: shownOf(nodes, id),
  });
}

/** Open WebUI keeps what a model thought in the text, as `<details type="reasoning">`. */
function withoutDetails(text: string): { readonly content: string; readonly reasoning: string } {
  const thoughts: string[] = [];
  const content = text.replace(
    /<details type="reasoning"[^>]*>\s*(?:<summary>[\s\S]*?<\/summary>)?([\s\S]*?)<\/details>\s*/g,
    (_, thought: string) => {
      thoughts.push(thought.replace(/^(?:>|&gt;) ?/gm, "").trim());
      return "";
    },
  );
  return { content, reasoning: thoughts.join("\n\n") };
}

function fromChatGpt(value: Json): Whole | null {
  const mapping = value["mapping"];
  if (!isObject(mapping)) return null;
  const id = textOrNull(value["conversation_id"]) ?? textOrNull(value["id"]) ?? newId();
  const nodes = Object.entries(mapping).map(([key, node]): Node => {
    const parent = isObject(node) ? textOrNull(node["parent"]) : null;
    const message = isObject(node) && isObject(node["message"]) ? node["message"] : {};
    return { id: key, parent, message: chatGptMessage(message) };
  });
  const all = new Map(nodes.map((one) => [one.id, one]));
  return adopted({
    id,
    title: text(value["title"]),
    created: moment(value["create_time"]),
    updated: moment(value["update_time"]),
    leaf: nearestShown(all, textOrNull(value["current_node"])),
    settings: {},
    messages: shownOf(nodes, id),
  });
}

function chatGptMessage(message: Json): Node["message"] {
  const author = isObject(message["author"]) ? message["author"]["role"] : null;
  const content = isObject(message["content"]) ? message["content"] : {};
  const metadata = isObject(message["metadata"]) ? message["metadata"] : {};
  const kind = content["content_type"] ?? "text";
  // Other kinds are calls of tools, their results, and what the model thought to itself.
  if (author !== "user" && author !== "assistant") return null;
  if (kind !== "text" && kind !== "multimodal_text") return null;
  if (metadata["is_visually_hidden_from_conversation"] === true) return null;
  const parts: readonly unknown[] = Array.isArray(content["parts"]) ? content["parts"] : [];
  // Images are files beside it in the archive, so only what was said about them is here.
  const said = parts.filter((part) => typeof part === "string" && part !== "").join("\n\n");
  if (said === "") return null;
  const model = textOrNull(metadata["model_slug"]);
  return {
    role: author,
    content: said,
    images: [],
    ...(author === "assistant" && { finish: "stop" }),
    ...(author === "assistant" && model !== null && { model }),
    created: moment(message["create_time"]) ?? 0,
  };
}

function settingsWith(system: unknown): Settings {
  return typeof system === "string" && system.trim() !== "" ? { system } : {};
}

function isImage(image: Image | null): image is Image {
  return image !== null;
}
