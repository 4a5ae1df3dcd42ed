/** The tree of a conversation's messages. Pure: a changed tree is a new one. */

import { newId, type Message, type MessageId, type Messages } from "./types";

const NONE: readonly Message[] = [];

/** Messages from the first question to `leaf`; none if `leaf` is `null` or unknown. */
export function path(messages: Messages, leaf: MessageId | null): readonly Message[] {
  const found: Message[] = [];
  const seen = new Set<MessageId>(); // what was imported may lead in a circle
  let next = leaf;
  while (next !== null && !seen.has(next)) {
    const message = messages.get(next);
    if (message === undefined) break;
    seen.add(next);
    found.push(message);
    next = message.parent;
  }
  return found.reverse();
}

/** What follows `parent`, oldest first; the roots if it is `null`. */
export function children(messages: Messages, parent: MessageId | null): readonly Message[] {
  return byParent(messages).get(parent) ?? NONE;
}

// A tree is never changed in place, so what was worked out for it stays true.
const known = new WeakMap<Messages, ReadonlyMap<MessageId | null, readonly Message[]>>();

function byParent(messages: Messages): ReadonlyMap<MessageId | null, readonly Message[]> {
  const before = known.get(messages);
  if (before) return before;
  const groups = new Map<MessageId | null, Message[]>();
  for (const message of messages.values()) {
    // One whose parent was lost begins a path of its own.
    const parent = message.parent !== null && messages.has(message.parent) ? message.parent : null;
    const group = groups.get(parent);
    if (group) group.push(message);
    else groups.set(parent, [message]);
  }
  for (const group of groups.values()) group.sort(inOrder);
  known.set(messages, groups);
  return groups;
}

function inOrder(a: Message, b: Message): number {
  return a.created - b.created || (a.id < b.id ? -1 : 1);
}

export interface Siblings {
  /** The message itself and its alternatives, oldest first. */
  readonly ids: readonly MessageId[];
  /** Where among them it stands, from 0. */
  readonly index: number;
}

/** Alternatives of a message: what was asked or answered at the same place. */
export function siblings(messages: Messages, id: MessageId): Siblings {
  const message = messages.get(id);
  if (message === undefined) return { ids: [], index: -1 };
  const { parent } = message;
  const ids = children(messages, parent !== null && messages.has(parent) ? parent : null).map(
    (one) => one.id,
  );
  return { ids, index: ids.indexOf(id) };
}

/** The end of the path through `id` that was written last: where choosing a sibling leads. */
export function leafBelow(messages: Messages, id: MessageId): MessageId {
  const seen = new Set<MessageId>([id]);
  let leaf = id;
  for (;;) {
    const next = children(messages, leaf).at(-1);
    if (next === undefined || seen.has(next.id)) return leaf;
    seen.add(next.id);
    leaf = next.id;
  }
}

/** `leaf` if it is there, else the end of the path that was begun last. */
export function leafOf(messages: Messages, leaf: MessageId | null): MessageId | null {
  if (leaf !== null && messages.has(leaf)) return leaf;
  const root = children(messages, null).at(-1);
  return root === undefined ? null : leafBelow(messages, root.id);
}

/** The tree with a message added, or changed. */
export function add(messages: Messages, message: Message): Messages {
  return new Map(messages).set(message.id, message);
}

/** A question in place of `id`, for a branch of its own: a sibling with other words or images. */
export function editAndBranch(
  messages: Messages,
  id: MessageId,
  change: Pick<Message, "content"> & Partial<Pick<Message, "images">>,
  now: number = Date.now(),
): Message {
  const before = messages.get(id);
  if (before === undefined) throw new RangeError(`no message ${id}`);
  return {
    id: newId(),
    conversation: before.conversation,
    parent: before.parent,
    role: before.role,
    content: change.content,
    images: change.images ?? before.images,
    created: Math.max(now, before.created + 1), // last among its siblings, whatever the clock says
  };
}

/** A message and all that follows it. */
export function below(messages: Messages, id: MessageId): readonly MessageId[] {
  const found = new Set<MessageId>([id]);
  for (const one of found) for (const child of children(messages, one)) found.add(child.id);
  return [...found];
}

/** The tree without a message and what follows it. */
export function remove(messages: Messages, id: MessageId): Messages {
  const rest = new Map(messages);
  for (const one of below(messages, id)) rest.delete(one);
  return rest;
}

/** Whether `id` is on the path to `leaf`. */
export function isOnPath(messages: Messages, id: MessageId, leaf: MessageId | null): boolean {
  return path(messages, leaf).some((one) => one.id === id);
}
