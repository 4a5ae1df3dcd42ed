/** All that was said in all conversations, in memory, from the first search on. */

import { signal, type ReadonlySignal } from "@preact/signals";
import { fold, type Text } from "./search";
import type { ConversationStore } from "./store";
import type { ConversationId, Message } from "./types";

export class Texts {
  readonly #store: ConversationStore;
  readonly #texts = signal<ReadonlyMap<ConversationId, Text>>(new Map());
  readonly #stale = new Set<ConversationId>();
  #reading: Promise<void> | null = null;
  #all = true;

  constructor(store: ConversationStore) {
    this.#store = store;
    store.watch((ids) => {
      if (ids === null) this.#all = true;
      else for (const id of ids) this.#stale.add(id);
    });
  }

  /** What was read so far. */
  get texts(): ReadonlySignal<ReadonlyMap<ConversationId, Text>> {
    return this.#texts;
  }

  /**
   * Read what changed since the last time, at first all, in pieces that leave room for others.
   *
   * Never throws: what can't be read now is read the next time, and not found until then.
   */
  refresh(): Promise<void> {
    this.#reading ??= this.#read()
      .catch(() => {
        this.#all = true;
      })
      .finally(() => (this.#reading = null));
    return this.#reading;
  }

  async #read(): Promise<void> {
    if (this.#all) {
      this.#all = false;
      this.#stale.clear();
      const parts = new Map<ConversationId, Message[]>();
      for await (const batch of this.#store.texts())
        for (const one of batch) {
          const before = parts.get(one.conversation);
          if (before) before.push(one);
          else parts.set(one.conversation, [one]);
        }
      const texts = new Map<ConversationId, Text>();
      let done = 0;
      for (const [id, messages] of parts) {
        texts.set(id, textOf(messages));
        if (++done % 100 === 0) await new Promise((resolve) => setTimeout(resolve));
      }
      this.#texts.value = texts;
    }
    if (this.#stale.size === 0) return;
    const texts = new Map(this.#texts.peek());
    const stale = [...this.#stale];
    this.#stale.clear();
    for (const id of stale) {
      const messages = await this.#store.textsOf(id);
      if (messages.length > 0) texts.set(id, textOf(messages));
      else texts.delete(id);
    }
    this.#texts.value = texts;
  }
}

function textOf(messages: readonly Message[]): Text {
  const said = [...messages]
    .sort((a, b) => a.created - b.created)
    .map((one) => one.content)
    .join("\n");
  return { said, folded: fold(said) };
}
