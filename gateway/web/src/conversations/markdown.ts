/**
 * A conversation as Markdown: the path that is shown, without its branches, for people to read.
 *
 * Comments, which nobody sees who reads it, say what a text can't: whose each is, and when. By
 * them it is read again. docs/conversations.md tells of them. Pure.
 */

import { files as t } from "../texts/en/conversations";
import type { Whole } from "./database";
import { BadFile, type Parsed } from "./parsed";
import { conversationFrom, isObject, messageFrom } from "./records";
import { path } from "./tree";
import { newId, type Message } from "./types";

const FORMAT = "llm-gateway-conversation";
const VERSION = 1;

export function markdownOf({ conversation, messages }: Whole): string {
  const shown = path(new Map(messages.map((one) => [one.id, one])), conversation.leaf);
  const { settings, leaf: _, ...rest } = conversation;
  const { system, ...others } = settings;
  const mark = markFor([system, ...shown.flatMap((one) => [one.content, one.reasoning])]);
  const head = { version: VERSION, mark, ...rest, settings: others };
  return `${[
    comment(FORMAT, head),
    `# ${conversation.title}`,
    ...(system === undefined ? [] : [comment(mark, { role: "system" }), `## ${t.system}`, system]),
    ...shown.flatMap((one) => section(one, mark)),
  ].join("\n\n")}\n`;
}

function section(message: Message, mark: string): readonly string[] {
  const { id: _, conversation: __, parent: ___, content, reasoning, images, ...rest } = message;
  const who = message.role === "user" ? t.you : (message.model ?? t.answer);
  return [
    comment(mark, rest),
    `## ${who}`,
    ...(reasoning
      ? [
          `<details><summary>${t.thinking}</summary>`,
          comment(mark, { part: "reasoning" }),
          reasoning,
          comment(mark, { part: "end" }),
          "</details>",
        ]
      : []),
    ...images.map((one) => `*(${t.image}, ${one.mime})*`),
    ...(content === "" ? [] : [comment(mark, { part: "content" }), content]),
  ];
}

/** A word that no comment in these texts begins with. */
function markFor(texts: readonly (string | undefined)[]): string {
  let mark = "message";
  while (texts.some((one) => one?.includes(`<!-- ${mark} `))) mark += "-";
  return mark;
}

function comment(mark: string, value: object): string {
  return `<!-- ${mark} ${JSON.stringify(value).replaceAll(">", "\\u003e")} -->`;
}

type Json = Readonly<Record<string, unknown>>;

/** What {@link markdownOf} wrote; `null` if the text is nothing of the kind. Throws {@link BadFile}. */
export function parseMarkdown(text: string): Parsed | null {
  const plain = text.replaceAll("\r\n", "\n");
  const head = commentsIn(plain, FORMAT)[0]?.value;
  if (head === undefined) return null;
  if (typeof head["version"] === "number" && head["version"] > VERSION)
    throw new BadFile("newer", head["version"]);
  const mark = typeof head["mark"] === "string" ? head["mark"] : "";
  const { system, messages } = saidIn(commentsIn(plain, mark), String(head["id"]));
  const settings = isObject(head["settings"]) ? head["settings"] : {};
  const conversation = conversationFrom({
    ...head,
    settings: system === undefined ? settings : { ...settings, system },
    leaf: messages.at(-1)?.id ?? null,
  });
  if (conversation === null) throw new BadFile("unknown");
  const isEmpty = messages.length === 0;
  return { wholes: isEmpty ? [] : [{ conversation, messages }], skipped: isEmpty ? 1 : 0 };
}

interface Comment {
  readonly value: Json;
  /** What follows it, up to the next one. */
  readonly text: string;
}

function commentsIn(text: string, mark: string): readonly Comment[] {
  const [, ...parts] = `\n${text}`.split(`\n<!-- ${mark} `);
  return parts.flatMap((part) => {
    const end = part.indexOf(" -->");
    const value = object(part.slice(0, end));
    return value === null ? [] : [{ value, text: part.slice(end + 4).replace(/^\n+|\n+$/g, "") }];
  });
}

function object(json: string): Json | null {
  try {
    const value: unknown = JSON.parse(json);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

interface Said {
  readonly system: string | undefined;
  readonly messages: readonly Message[];
}

function saidIn(comments: readonly Comment[], conversation: string): Said {
  let system: string | undefined;
  const drafts: Record<string, unknown>[] = [];
  for (const { value, text } of comments) {
    const { role, part } = value;
    if (role === "system") system = text.replace(/^## .*\n+/, "");
    else if (role !== undefined) drafts.push({ ...value, content: "" });
    else if (part === "content" || part === "reasoning")
      Object.assign(drafts.at(-1) ?? {}, { [part]: text });
  }
  const messages: Message[] = [];
  for (const draft of drafts) {
    const parent = messages.at(-1)?.id ?? null;
    const message = messageFrom({ ...draft, id: newId(), conversation, parent, images: [] });
    if (message !== null) messages.push(message);
  }
  return { system, messages };
}
