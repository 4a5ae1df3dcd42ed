/** Pictures that were added to a question and aren't sent yet, for each conversation of this tab. */

import { signal, type Signal } from "@preact/signals";
import type { Image } from "../../conversations/types";
import { NoPicture, picture } from "./images";

const NONE: readonly Image[] = [];

/** Those that are read, and how many are being read. */
const kept = signal<ReadonlyMap<string, readonly Image[]>>(new Map());
const underWay = signal<ReadonlyMap<string, number>>(new Map());

const placeOf = (id: string | null): string => id ?? "new";

/** `id`: a conversation; `null`: one that isn't begun. */
export function unsent(id: string | null): readonly Image[] {
  return kept.value.get(placeOf(id)) ?? NONE;
}

/** How many pictures of a conversation are being read. */
export function reading(id: string | null): number {
  return underWay.value.get(placeOf(id)) ?? 0;
}

export function keepUnsent(id: string | null, images: readonly Image[]): void {
  change(kept, id, images.length === 0 ? undefined : images);
}

/** Forget those of conversations; `null`: of all that are begun. Returns what brings them back. */
export function takeUnsent(ids: readonly string[] | null): () => void {
  const begun = [...kept.peek().keys()].filter((one) => one !== placeOf(null));
  const taken = (ids ?? begun).map((id) => [id, unsent(id)] as const);
  for (const [id] of taken) keepUnsent(id, []);
  return () => {
    for (const [id, images] of taken) keepUnsent(id, images);
  };
}

/**
 * Read pictures for a conversation, whatever is opened meanwhile.
 *
 * Returns the names of those that this browser can't read.
 */
export async function addUnsent(
  id: string | null,
  files: readonly File[],
): Promise<readonly string[]> {
  const unreadable: string[] = [];
  change(underWay, id, reading(id) + files.length);
  for (const file of files) {
    try {
      const image = await picture(file, file.name);
      keepUnsent(id, [...unsent(id), image]); // what is there now, not before it was read
    } catch (error) {
      unreadable.push(error instanceof NoPicture ? error.message : file.name);
    } finally {
      change(underWay, id, reading(id) - 1 || undefined);
    }
  }
  return unreadable;
}

function change<T>(
  all: Signal<ReadonlyMap<string, T>>,
  id: string | null,
  value: T | undefined,
): void {
  const next = new Map(all.peek());
  if (value === undefined) next.delete(placeOf(id));
  else next.set(placeOf(id), value);
  all.value = next;
}
