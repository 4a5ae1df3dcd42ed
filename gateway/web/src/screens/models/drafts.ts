/** What was changed in forms and is not saved yet, so that a look at another tab loses nothing. */

import { box } from "../../gateway/connection";
import { equal, type JsonObject } from "../../schema-form/json";
import type { Stored } from "./entry";

export interface Draft {
  readonly before: Stored;
  readonly entry: JsonObject;
}

const drafts = new Map<string, Draft>();

function keyOf(name: string): string {
  return JSON.stringify([box.value?.address ?? "", name]);
}

export function draftOf(name: string): Draft | undefined {
  return drafts.get(keyOf(name));
}

/** Remember `draft`, or forget what there is, if it is no different from what is saved. */
export function keepDraft(name: string, draft: Draft | null): void {
  if (draft === null || equal(draft.before.entry, draft.entry)) drafts.delete(keyOf(name));
  else drafts.set(keyOf(name), draft);
}

/** The browser asks before such a page is closed. */
addEventListener("beforeunload", (event) => {
  if (drafts.size > 0) event.preventDefault();
});
