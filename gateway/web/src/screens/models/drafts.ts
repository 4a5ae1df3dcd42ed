/** What was changed in forms and is not saved yet, so that a look at something else loses nothing. */

import { signal } from "@preact/signals";
import { box } from "../../gateway/connection";
import { equal, type JsonObject } from "../../schema-form/json";
import type { Stored } from "./entry";

/** Of the form of an entry. */
export interface Draft {
  readonly before: Stored;
  readonly entry: JsonObject;
}

/** Of a personality of one. */
export interface PersonalityDraft {
  /** The entry that it was begun with. */
  readonly before: Stored;
  readonly name: string;
  readonly value: JsonObject;
}

const drafts = new Map<string, Draft>();
/** By model, and in it by the saved name; "" is a new one. */
const personalities = signal<ReadonlyMap<string, ReadonlyMap<string, PersonalityDraft>>>(new Map());

function keyOf(model: string): string {
  return JSON.stringify([box.peek()?.address ?? "", model]);
}

export function draftOf(name: string): Draft | undefined {
  return drafts.get(keyOf(name));
}

/** Remember `draft`, or forget what there is, if it is no different from what is saved. */
export function keepDraft(name: string, draft: Draft | null): void {
  if (draft === null || equal(draft.before.entry, draft.entry)) drafts.delete(keyOf(name));
  else drafts.set(keyOf(name), draft);
}

/** Of the personalities of `model`, by their saved names; "" is a new one. */
export function personalityDrafts(model: string): ReadonlyMap<string, PersonalityDraft> {
  return personalities.value.get(keyOf(model)) ?? new Map<string, PersonalityDraft>();
}

/** Remember `draft` of the personality that is saved as `own`, or with `null` forget what there is. */
export function keepPersonalityDraft(
  model: string,
  own: string,
  draft: PersonalityDraft | null,
): void {
  const [all, key] = [new Map(personalities.peek()), keyOf(model)];
  const its = new Map(all.get(key));
  if (draft === null && !its.has(own)) return;
  if (draft === null) its.delete(own);
  else its.set(own, draft);
  if (its.size === 0) all.delete(key);
  else all.set(key, its);
  personalities.value = all;
}

/** The model is gone, and with it what its forms would have changed. */
export function forgetDrafts(model: string): void {
  drafts.delete(keyOf(model));
  const all = new Map(personalities.peek());
  if (all.delete(keyOf(model))) personalities.value = all;
}

/** The browser asks before such a page is closed. */
addEventListener("beforeunload", (event) => {
  if (drafts.size > 0 || personalities.peek().size > 0) event.preventDefault();
});
