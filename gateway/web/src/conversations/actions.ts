/** What can be done with a conversation of the list. */

import type { MenuItem } from "../components/Menu";
import { toast } from "../components/Toasts";
import { route } from "../router";
import { actions as common } from "../texts/en/common";
import { conversations as t, files as f } from "../texts/en/conversations";
import { store } from "./conversations";
import { openConversation, openNewConversation } from "./route";
import { saveAsJson, saveAsMarkdown } from "./save";
import type { Conversation } from "./types";

export function actionsOf(conversation: Conversation, rename: () => void): readonly MenuItem[] {
  const { id, pinned } = conversation;
  return [
    { words: t.rename, run: rename },
    { words: pinned ? t.unpin : t.pin, run: () => store.change(id, { pinned: !pinned }) },
    { words: f.saveJson, run: () => void saveAsJson([id]) },
    { words: f.saveMarkdown, run: () => void saveAsMarkdown(id) },
    { words: t.remove, run: () => void removeWithUndo(conversation), danger: true },
  ];
}

/** Delete a conversation, and offer for a while to bring it back. */
export async function removeWithUndo(conversation: Conversation): Promise<void> {
  const { id, title } = conversation;
  const wasOpen = store.opened.peek()?.conversation.id === id;
  let undo: () => Promise<void>;
  try {
    undo = await store.remove([id]);
  } catch {
    toast(t.cantRemove);
    return;
  }
  if (wasOpen && route.peek().screen === "chat") openNewConversation();
  const run = async (): Promise<void> => {
    await undo();
    if (wasOpen) openConversation(id);
  };
  toast(t.removed(title || t.untitled), { words: common.undo, run: () => void run() });
}
