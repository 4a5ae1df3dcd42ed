/**
 * Answers that are being written. They go on while the person looks at another conversation or
 * screen, and what came of them is kept as it comes.
 */

import { signal, type ReadonlySignal } from "@preact/signals";
import type { ConversationId, Message, Stream } from "../../conversations/types";
import { onStopElsewhere } from "./oneTab";
import { Writing, type Run, type Wanted } from "./writing";

export type { Run, Wanted } from "./writing";

const underWay = signal<ReadonlyMap<ConversationId, Writing>>(new Map());

/** By their conversations. */
export const runs: ReadonlySignal<ReadonlyMap<ConversationId, Run>> = underWay;

/** Write an answer; resolves when it has ended, however it did. Never throws. */
export function run(wanted: Wanted): Promise<void> {
  return toTheEnd(wanted.conversation.id, () => new Writing(wanted.message, wanted));
}

/** The same for one that was begun, by this page before it was loaded again, or by another tab. */
export function takeUp(message: Message & { readonly stream: Stream }): Promise<void> {
  return toTheEnd(message.conversation, () => new Writing(message, null));
}

async function toTheEnd(id: ConversationId, begin: () => Writing): Promise<void> {
  if (underWay.peek().has(id)) return;
  const writing = begin();
  underWay.value = new Map(underWay.peek()).set(id, writing);
  try {
    writing.ended = writing.write();
    await writing.ended;
  } finally {
    const rest = new Map(underWay.peek());
    rest.delete(id);
    underWay.value = rest;
  }
}

/** Stop the answers of conversations; `null`: all. Resolves when what came of them is kept. */
export async function stopRuns(ids: readonly ConversationId[] | null): Promise<void> {
  const stopped = [...underWay.peek()].filter(([id]) => ids === null || ids.includes(id));
  for (const [, one] of stopped) one.stop();
  await Promise.all(stopped.map(([, one]) => one.ended));
}

onStopElsewhere((id) => {
  for (const one of underWay.peek().values()) if (one.message.peek().id === id) one.stopHere();
});
