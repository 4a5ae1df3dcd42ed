/** Other ids for what comes from elsewhere. Pure. */

import type { Whole } from "./database";
import { newId, type ConversationId, type MessageId } from "./types";

/**
 * The same conversation as `id`, its messages under new ids: theirs may be taken by whatever
 * conversation, and would overwrite it.
 */
export function renewed({ conversation, messages }: Whole, id: ConversationId): Whole {
  const ids = new Map(messages.map((one) => [one.id, newId()]));
  const renamed = (before: MessageId | null): MessageId | null =>
    before === null ? null : (ids.get(before) ?? null);
  return {
    conversation: { ...conversation, id, leaf: renamed(conversation.leaf) },
    messages: messages.map((one) => ({
      ...one,
      id: renamed(one.id) ?? one.id,
      conversation: id,
      parent: renamed(one.parent),
    })),
  };
}
