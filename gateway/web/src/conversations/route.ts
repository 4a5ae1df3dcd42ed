/** The address of the Chat screen: `#/chat` is a new conversation, `#/chat/ID` one that is kept. */

import { useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { go, href, route } from "../router";
import { store } from "./conversations";
import type { ConversationId } from "./types";

/** Open what the address names, and name what was begun; for as long as the screen is there. */
export function useConversationRoute(): void {
  useEffect(() => void store.start(), []);
  useSignalEffect(() => {
    if (route.value.screen !== "chat") return;
    const id = route.value.rest[0];
    if (id !== undefined) void store.open(id);
    else startNew();
  });
  useSignalEffect(() => {
    const opened = store.opened.value;
    if (opened === null || opened.fresh || route.peek().screen !== "chat") return;
    if (route.peek().rest[0] === undefined) go(href("chat", opened.conversation.id), true);
  });
}

/** A new conversation, with the model and settings of the one that is open. */
function startNew(): void {
  const before = store.opened.peek();
  if (before?.fresh) return;
  const last = before?.conversation ?? store.list.peek()[0];
  store.openNew({ model: last?.model ?? null, personality: last?.personality ?? null });
}

export function openConversation(id: ConversationId): void {
  go(href("chat", id));
}

export function openNewConversation(): void {
  go(href("chat"));
}
