/** A conversation as Markdown, for people: the path that is shown, without its branches. Pure. */

import type { Whole } from "./database";
import { files as t } from "../texts/en/conversations";
import { path } from "./tree";
import type { Message } from "./types";

export function markdownOf({ conversation, messages }: Whole): string {
  const tree = new Map(messages.map((one) => [one.id, one]));
  const { system } = conversation.settings;
  return `${[
    `# ${conversation.title}`,
    ...(system === undefined ? [] : [`## ${t.system}`, system]),
    ...path(tree, conversation.leaf).flatMap(section),
  ].join("\n\n")}\n`;
}

function section(message: Message): readonly string[] {
  const { role, content, reasoning, images, model } = message;
  const who = role === "user" ? t.you : (model ?? t.answer);
  return [
    `## ${who}`,
    ...(reasoning
      ? [`<details><summary>${t.thinking}</summary>\n\n${reasoning}\n\n</details>`]
      : []),
    ...images.map((one) => `*(${t.image}, ${one.mime})*`),
    ...(content === "" ? [] : [content]),
  ];
}
