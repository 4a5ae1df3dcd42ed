/** What a file holds, whoever wrote it. */

import type { Whole } from "./database";
import { titleFrom } from "./title";
import { leafOf } from "./tree";
import type { Conversation, Message, Settings } from "./types";

export interface Parsed {
  readonly wholes: readonly Whole[];
  /** Conversations that had nothing in them that can be shown. */
  readonly skipped: number;
}

/** Why a file can't be imported; texts/en/conversations.ts has the words. */
export class BadFile extends Error {
  override readonly name = "BadFile";

  constructor(
    readonly why: "zip" | "notJson" | "unknown" | "newer" | "empty" | "unreadable",
    readonly version = 0,
  ) {
    super(why);
  }
}

/** What other programs tell of a conversation. */
export interface Foreign {
  readonly id: string;
  readonly title: string;
  /** Milliseconds, or `null`. */
  readonly created: number | null;
  readonly updated: number | null;
  readonly pinned?: boolean;
  readonly leaf: string | null;
  readonly settings: Settings;
  readonly messages: readonly Message[];
}

/** A conversation of ours out of one of theirs; `null` if nothing was said in it. */
export function adopted(foreign: Foreign): Whole | null {
  const { id, messages } = foreign;
  if (messages.length === 0) return null;
  const tree = new Map(messages.map((one) => [one.id, one]));
  const times = messages.map((one) => one.created);
  const first = messages.find((one) => one.role === "user");
  const model = messages.findLast((one) => one.model !== undefined)?.model;
  const conversation: Conversation = {
    id,
    title: foreign.title.trim() || titleFrom(first?.content ?? ""),
    pinned: foreign.pinned ?? false,
    created: foreign.created ?? times.reduce((a, b) => Math.min(a, b)),
    updated: foreign.updated ?? times.reduce((a, b) => Math.max(a, b)),
    model: model ?? null,
    personality: null,
    settings: foreign.settings,
    leaf: leafOf(tree, foreign.leaf),
    box: "",
  };
  return { conversation, messages };
}

/** A message of another program, before it is known whether it is one to show. */
export interface Node {
  readonly id: string;
  readonly parent: string | null;
  /** `null`: not to be shown (a root, a system text, a tool's result). */
  readonly message: Omit<Message, "id" | "parent" | "conversation"> | null;
}

/** Messages of a tree that has others between: each follows the nearest above it that is shown. */
export function shownOf(nodes: readonly Node[], conversation: string): readonly Message[] {
  const all = new Map(nodes.map((one) => [one.id, one]));
  return nodes.flatMap(({ id, parent, message }) =>
    message === null ? [] : [{ ...message, id, conversation, parent: nearestShown(all, parent) }],
  );
}

/** The message itself, or the nearest above it that is shown. */
export function nearestShown(all: ReadonlyMap<string, Node>, id: string | null): string | null {
  const seen = new Set<string>();
  let next = id;
  while (next !== null && !seen.has(next)) {
    const node = all.get(next);
    if (node === undefined) return null;
    if (node.message !== null) return next;
    seen.add(next);
    next = node.parent;
  }
  return null;
}
