/** What tabs of this page tell each other of the conversations that they share. */

import type { ConversationId, MessageId } from "./types";

export type News =
  | {
      readonly kind: "changed";
      readonly conversations: readonly ConversationId[];
      readonly messages: readonly (readonly [ConversationId, MessageId])[];
    }
  | { readonly kind: "removed"; readonly conversations: readonly ConversationId[] }
  /** So much that all is read again. */
  | { readonly kind: "all" };

export class Tabs {
  readonly #channel: BroadcastChannel | null;

  /** `onNews` is called for what other tabs tell, never for what this one does. */
  constructor(name: string, onNews: (news: News) => void) {
    // Absent in old browsers: then a tab sees what others did when it is opened again.
    this.#channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(name);
    this.#channel?.addEventListener("message", (event: MessageEvent<News>) => onNews(event.data));
  }

  tell(news: News): void {
    this.#channel?.postMessage(news);
  }

  close(): void {
    this.#channel?.close();
  }
}
