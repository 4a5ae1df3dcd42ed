/** Who is told of what happens to conversations, here or in another tab. */

import type { ConversationId } from "./types";

/** Conversations that are deleted. */
export interface Removal {
  /** `null`: all. */
  readonly ids: readonly ConversationId[] | null;
  /** Whether they are deleted here, or were by another tab. */
  readonly here: boolean;
}

/** Called with the conversations that changed; `null`: all. */
export type Watcher = (ids: readonly ConversationId[] | null) => void;

/** Lets go of what belongs to them. Returns what brings it back with them. */
export type OnRemove = (removal: Removal) => Promise<() => void>;

export class Watchers {
  readonly #watchers = new Set<Watcher>();
  readonly #removers = new Set<OnRemove>();

  /** Returns what ends it. */
  watch(watcher: Watcher): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Returns what ends it. */
  onRemove(remover: OnRemove): () => void {
    this.#removers.add(remover);
    return () => this.#removers.delete(remover);
  }

  tell(ids: readonly ConversationId[] | null): void {
    for (const watcher of this.#watchers) watcher(ids);
  }

  /** Tell of a removal. Returns what brings back what they let go of. */
  async removing(removal: Removal): Promise<() => void> {
    const back = await Promise.all([...this.#removers].map((one) => one(removal)));
    return () => {
      for (const one of back) one();
    };
  }
}
