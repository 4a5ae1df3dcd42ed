/** A conversation that nothing was said in yet. */

import type { Opened } from "./opened";
import { newId, type Conversation, type Settings } from "./types";

export interface New {
  readonly model?: string | null;
  readonly personality?: string | null;
  readonly settings?: Settings;
}

/** `box`: the address of the one in use. */
export function freshConversation(fields: New, box: string): Opened & { readonly fresh: true } {
  const now = Date.now();
  const conversation: Conversation = {
    id: newId(),
    title: "",
    pinned: false,
    created: now,
    updated: now,
    model: fields.model ?? null,
    personality: fields.personality ?? null,
    settings: fields.settings ?? {},
    leaf: null,
    box,
  };
  return { conversation, messages: new Map(), fresh: true, deleted: false };
}
