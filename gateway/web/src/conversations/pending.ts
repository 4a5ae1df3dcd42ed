/** What was changed and isn't written yet. The newest of each record counts. */

import type { Changes } from "./database";
import type { Conversation, ConversationId, Message, MessageId } from "./types";

export class Pending implements Changes {
  readonly #added = new Map<ConversationId, Conversation>();
  readonly #messages = new Map<MessageId, Message>();
  readonly changed = new Map<ConversationId, Partial<Conversation>>();

  get added(): readonly Conversation[] {
    return [...this.#added.values()];
  }

  get messages(): readonly Message[] {
    return [...this.#messages.values()];
  }

  get empty(): boolean {
    return this.#added.size + this.#messages.size + this.changed.size === 0;
  }

  add(conversation: Conversation): void {
    this.#added.set(conversation.id, conversation);
    this.changed.delete(conversation.id);
  }

  change(id: ConversationId, fields: Partial<Conversation>): void {
    const added = this.#added.get(id);
    if (added) this.#added.set(id, { ...added, ...fields });
    else this.changed.set(id, { ...this.changed.get(id), ...fields });
  }

  put(message: Message): void {
    this.#messages.set(message.id, message);
  }

  /** What was taken and could not be written, under what came since. */
  putBack(before: Pending): void {
    for (const one of before.#added.values()) {
      this.#added.set(one.id, { ...one, ...this.changed.get(one.id), ...this.#added.get(one.id) });
      this.changed.delete(one.id);
    }
    for (const [id, fields] of before.changed)
      if (!this.#added.has(id)) this.changed.set(id, { ...fields, ...this.changed.get(id) });
    for (const [id, one] of before.#messages)
      if (!this.#messages.has(id)) this.#messages.set(id, one);
  }

  forget(conversations: ReadonlySet<ConversationId>): void {
    for (const id of conversations) {
      this.#added.delete(id);
      this.changed.delete(id);
    }
    for (const [id, one] of this.#messages)
      if (conversations.has(one.conversation)) this.#messages.delete(id);
  }

  of(conversation: ConversationId): readonly Message[] {
    return this.messages.filter((one) => one.conversation === conversation);
  }
}
