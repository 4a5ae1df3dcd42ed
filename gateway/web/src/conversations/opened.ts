/** The conversation that is open, and how it takes what other tabs did to it. Pure. */

import { add, isOnPath } from "./tree";
import type { Conversation, Message, MessageId, Messages } from "./types";

export interface Opened {
  readonly conversation: Conversation;
  readonly messages: Messages;
  /** Nothing was said in it yet, so it is neither kept nor listed. */
  readonly fresh: boolean;
  /** Another tab deleted it. It is kept again when something more is asked here. */
  readonly deleted: boolean;
}

/**
 * `opened` with what another tab wrote: the conversation's record, if it changed, and messages.
 *
 * `mine` are messages that this tab is writing, and so knows better.
 */
export function merged(
  opened: Opened,
  theirs: Conversation | undefined,
  messages: readonly Message[],
  mine: ReadonlySet<MessageId>,
): Opened {
  const { id, leaf } = opened.conversation;
  const news = messages.filter((one) => one.conversation === id && !mine.has(one.id));
  if (opened.fresh || (theirs === undefined && news.length === 0)) return opened;
  const all = news.reduce(add, opened.messages);
  const theirLeaf = theirs?.leaf ?? null;
  // Follow where the path goes on; stay where they took another branch.
  const follows = theirLeaf !== null && (leaf === null || isOnPath(all, leaf, theirLeaf));
  return {
    conversation: { ...opened.conversation, ...theirs, leaf: follows ? theirLeaf : leaf },
    messages: all,
    fresh: false,
    deleted: opened.deleted && theirs === undefined,
  };
}
