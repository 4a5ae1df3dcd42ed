/** Which conversations of a file are new here, and under which ids. */

import type { Database, Whole } from "./database";
import { renewed } from "./renewed";
import { newId, type Conversation } from "./types";

export interface Added {
  readonly conversations: number;
  /** Those that were here already, as they are. */
  readonly known: number;
}

/**
 * Those of `wholes` that aren't among `here`, with new ids where theirs are taken.
 *
 * One is here already if it has the same id and time, and as many messages.
 */
export async function unknownOf(
  wholes: readonly Whole[],
  here: readonly Conversation[],
  database: Database,
): Promise<readonly Whole[]> {
  const added: Whole[] = [];
  const taken = new Map(here.map((one) => [one.id, one]));
  for (const whole of wholes) {
    const { conversation, messages } = whole;
    const before = taken.get(conversation.id);
    if (before && before.updated === conversation.updated) {
      const { records } = await database.messagesOf(conversation.id);
      if (records.length === messages.length) continue;
    }
    const one = renewed(whole, before ? newId() : conversation.id);
    taken.set(one.conversation.id, one.conversation);
    added.push(one);
  }
  return added;
}
