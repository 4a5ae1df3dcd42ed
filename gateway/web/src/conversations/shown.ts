/** What the screen sees of the conversations: signals, and how they change together. No I/O. */

import { signal } from "@preact/signals";
import { merged, type Opened } from "./opened";
import type { Trouble } from "./trouble";
import type { Conversation, ConversationId, Message, MessageId } from "./types";

export class Shown {
  readonly list = signal<readonly Conversation[]>([]);
  readonly ready = signal(false);
  readonly opened = signal<Opened | null>(null);
  readonly missing = signal<ConversationId | null>(null);
  readonly unopened = signal(false);
  readonly trouble = signal<Trouble | null>(null);
  readonly unreadable = signal(0);
  #unlisted = false;

  /** Whether the list, or what others did to it, could not be read. */
  get unlisted(): boolean {
    return this.#unlisted;
  }

  /** The list was read: these are all. */
  setList(all: readonly Conversation[], unreadable: number): void {
    this.unreadable.value = unreadable;
    this.list.value = sorted(all);
    this.ready.value = true;
    this.#unlisted = false;
    this.#updateTrouble();
  }

  readonly cantList = (_: unknown): void => {
    this.#unlisted = true;
    this.#updateTrouble();
  };

  /** Another one is to be opened. */
  opening(): void {
    this.missing.value = null;
    this.unopened.value = false;
    this.#updateTrouble();
  }

  cantOpen(): void {
    this.unopened.value = true;
    this.#updateTrouble();
  }

  /** Say whether something could not be read. */
  #updateTrouble(): void {
    const trouble = this.trouble.peek();
    if (this.#unlisted || this.unopened.peek()) {
      if (trouble !== "outdated") this.trouble.value = "unread";
    } else if (trouble === "unread") this.trouble.value = null;
  }

  find(id: ConversationId): Conversation | undefined {
    return this.list.peek().find((one) => one.id === id);
  }

  /** The list with these, in place of those that have their ids. */
  put(conversations: readonly Conversation[]): void {
    const ids = new Set(conversations.map((one) => one.id));
    const others = this.list.peek().filter((one) => !ids.has(one.id));
    this.list.value = sorted([...others, ...conversations]);
  }

  change(id: ConversationId, fields: Partial<Conversation>): void {
    this.list.value = sorted(
      this.list.peek().map((one) => (one.id === id ? { ...one, ...fields } : one)),
    );
  }

  /** Conversations that were deleted here. */
  drop(ids: readonly ConversationId[]): void {
    const dropped = new Set(ids);
    this.list.value = this.list.peek().filter((one) => !dropped.has(one.id));
    const opened = this.opened.peek();
    if (opened && dropped.has(opened.conversation.id)) this.opened.value = null;
  }

  /** Conversations that another tab deleted. One that is open stays, and is marked. */
  markGone(ids: readonly ConversationId[]): void {
    if (ids.length === 0) return;
    const gone = new Set(ids);
    this.list.value = this.list.peek().filter((one) => !gone.has(one.id));
    const opened = this.opened.peek();
    if (opened && gone.has(opened.conversation.id))
      this.opened.value = { ...opened, deleted: true };
  }

  /** What another tab did to the conversation that is open; `mine` are messages of this tab. */
  merge(
    conversations: readonly Conversation[],
    messages: readonly Message[],
    mine: ReadonlySet<MessageId>,
  ): void {
    const opened = this.opened.peek();
    if (opened === null) return;
    const theirs = conversations.find((one) => one.id === opened.conversation.id);
    this.opened.value = merged(opened, theirs, messages, mine);
  }
}

/** The one that something was said in last comes first. */
function sorted(list: readonly Conversation[]): readonly Conversation[] {
  return [...list].sort((a, b) => b.updated - a.updated || (a.id < b.id ? -1 : 1));
}
