/** Files that the browser saves: conversations as JSON, or as Markdown. */

import { toast } from "../components/Toasts";
import { conversations as c, files as t } from "../texts/en/conversations";
import { store } from "./conversations";
import { exported } from "./format";
import { markdownOf } from "./markdown";
import type { ConversationId } from "./types";

/** All of the list without `ids`. */
export async function saveAsJson(ids?: readonly ConversationId[]): Promise<void> {
  try {
    const blob = await exported(store.wholes(ids));
    const title = ids ? await titleOf(ids[0]) : c.title;
    save(blob, `${fileName(title)}.json`);
  } catch {
    toast(t.cantSave);
  }
}

export async function saveAsMarkdown(id: ConversationId): Promise<void> {
  try {
    for await (const whole of store.wholes([id])) {
      const blob = new Blob([markdownOf(whole)], { type: "text/markdown" });
      save(blob, `${fileName(whole.conversation.title)}.md`);
    }
  } catch {
    toast(t.cantSave);
  }
}

async function titleOf(id: ConversationId | undefined): Promise<string> {
  return store.list.peek().find((one) => one.id === id)?.title ?? c.untitled;
}

/** A title as the name of a file that every system takes. */
export function fileName(title: string): string {
  const name = title
    .replace(/[\p{Cc}<>:"/\\|?*…]+/gu, " ")
    .replace(/\s+/g, " ")
    .replace(/^[.\s]+|[.\s]+$/g, "");
  return Array.from(name).slice(0, 80).join("").trim() || c.untitled;
}

function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // once it is saved
}
