/**
 * Changes on their way into the database.
 *
 * They wait for others for half a second. What can't be written stays here, and is tried again with
 * the next.
 */

import type { Signal } from "@preact/signals";
import type { Database } from "./database";
import { Pending } from "./pending";
import { isQuotaExceeded, type Trouble } from "./trouble";
import type { Conversation, ConversationId, Message } from "./types";

/** Milliseconds that a change may wait for others. */
const PATIENCE = 500;

/** Told of what was written; `gone` are conversations that another tab has deleted meanwhile. */
type OnWritten = (written: Pending, gone: readonly ConversationId[]) => void;

export class Writing {
  readonly #database: () => Promise<Database>;
  readonly #trouble: Signal<Trouble | null>;
  readonly #onWritten: OnWritten;
  #pending = new Pending();
  #inFlight: Pending | null = null;
  #writing: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(
    database: () => Promise<Database>,
    trouble: Signal<Trouble | null>,
    onWritten: OnWritten,
  ) {
    this.#database = database;
    this.#trouble = trouble;
    this.#onWritten = onWritten;
  }

  /** Conversations that aren't written yet. */
  get added(): readonly Conversation[] {
    return this.#unwritten.flatMap((one) => one.added);
  }

  /** Messages that aren't written yet, older ones first; those of one conversation, or all. */
  messages(of?: ConversationId): readonly Message[] {
    return this.#unwritten.flatMap((one) => (of === undefined ? one.messages : one.of(of)));
  }

  /** What was changed in a conversation since the last write began. */
  changed(id: ConversationId): Partial<Conversation> | undefined {
    return this.#pending.changed.get(id);
  }

  get #unwritten(): readonly Pending[] {
    return this.#inFlight ? [this.#inFlight, this.#pending] : [this.#pending];
  }

  add(conversation: Conversation): void {
    this.#pending.add(conversation);
  }

  change(id: ConversationId, fields: Partial<Conversation>): void {
    this.#pending.change(id, fields);
  }

  put(message: Message): void {
    this.#pending.put(message);
  }

  forget(ids: readonly ConversationId[]): void {
    this.#pending.forget(new Set(ids));
  }

  forgetAll(): void {
    this.#pending = new Pending();
  }

  later(): void {
    this.#timer ??= setTimeout(() => void this.flush(), PATIENCE);
  }

  /** Write what isn't written yet. Never throws: `trouble` says what is wrong. */
  flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  /** Write what had no room before; if it has none still, that is told again. */
  async flushWithRoom(): Promise<void> {
    if (this.#trouble.peek() !== "full") return;
    this.#trouble.value = null;
    await this.flush();
  }

  async #write(): Promise<void> {
    const taken = this.#pending;
    if (taken.empty) return;
    this.#pending = new Pending();
    this.#inFlight = taken;
    try {
      const gone = await (await this.#database()).write(taken);
      this.#onWritten(taken, gone);
      const trouble = this.#trouble.peek();
      if (trouble === "full" || trouble === "failed") this.#trouble.value = null;
    } catch (error) {
      this.#pending.putBack(taken);
      if (this.#trouble.peek() !== "outdated")
        this.#trouble.value = isQuotaExceeded(error) ? "full" : "failed";
    } finally {
      this.#inFlight = null;
    }
  }
}
