/** The list of conversations in groups: pinned, today, yesterday, earlier. Pure. */

import type { Conversation } from "./types";

export type GroupName = "pinned" | "today" | "yesterday" | "earlier";

export interface Group {
  readonly name: GroupName;
  readonly conversations: readonly Conversation[];
}

/** Groups that aren't empty, each in the order of `list`; days are those of the person's clock. */
export function groups(list: readonly Conversation[], now: Date = new Date()): readonly Group[] {
  const today = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1).getTime();
  const found: Record<GroupName, Conversation[]> = {
    pinned: [],
    today: [],
    yesterday: [],
    earlier: [],
  };
  for (const one of list) {
    if (one.pinned) found.pinned.push(one);
    else if (one.updated >= today) found.today.push(one);
    else if (one.updated >= yesterday) found.yesterday.push(one);
    else found.earlier.push(one);
  }
  const names: readonly GroupName[] = ["pinned", "today", "yesterday", "earlier"];
  return names
    .map((name) => ({ name, conversations: found[name] }))
    .filter((one) => one.conversations.length > 0);
}
