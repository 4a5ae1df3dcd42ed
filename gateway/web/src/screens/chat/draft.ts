/** What was typed and isn't sent yet, kept for each conversation in this browser. */

const PLACE = "llm-gateway.draft:";

/** `id`: a conversation; `null`: one that isn't begun. */
export function draft(id: string | null): string {
  try {
    return localStorage.getItem(PLACE + (id ?? "new")) ?? "";
  } catch {
    return "";
  }
}

export function keepDraft(id: string | null, text: string): void {
  try {
    if (text === "") localStorage.removeItem(PLACE + (id ?? "new"));
    else localStorage.setItem(PLACE + (id ?? "new"), text);
  } catch {
    // a full or forbidden storage loses a draft, and nothing else
  }
}
