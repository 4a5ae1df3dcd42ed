/**
 * Where conversations are kept: in this browser's IndexedDB, or in memory where there is none.
 *
 * Version 1: `conversations` by id, and `messages` by id with an index by conversation, so that an
 * answer under way writes one small record, and two tabs never overwrite each other's messages.
 */

import { openDB, type DBSchema, type IDBPDatabase } from "idb";
import { conversationFrom, isObject, messageFrom } from "./records";
import type { Conversation, ConversationId, Message, MessageId } from "./types";

/** What shall be written at once: all of it, or nothing. */
export interface Changes {
  /** Conversations as a whole, in place of what may be there. */
  readonly added: readonly Conversation[];
  /** Fields of conversations that are there. */
  readonly changed: ReadonlyMap<ConversationId, Partial<Conversation>>;
  /** Messages, new or changed. */
  readonly messages: readonly Message[];
}

export interface Found<T> {
  readonly records: readonly T[];
  /** How many more there are that can't be understood. They are left where they are. */
  readonly unreadable: number;
}

/** All of a conversation. */
export interface Whole {
  readonly conversation: Conversation;
  readonly messages: readonly Message[];
}

export interface Database {
  /** Whether it outlives the tab. */
  readonly lasting: boolean;
  conversations(): Promise<Found<Conversation>>;
  conversation(id: ConversationId): Promise<Conversation | null>;
  messagesOf(id: ConversationId): Promise<Found<Message>>;
  messages(ids: readonly MessageId[]): Promise<readonly Message[]>;
  /** Messages of all conversations, in batches. */
  allMessages(): AsyncGenerator<readonly Message[]>;
  /**
   * Returns the conversations that are not there (any more), of which nothing was written.
   *
   * Throws DOMException: `QuotaExceededError` when the disk or the browser's share of it is full.
   */
  write(changes: Changes): Promise<readonly ConversationId[]>;
  remove(ids: readonly ConversationId[]): Promise<void>;
  clear(): Promise<void>;
  close(): void;
}

interface Schema extends DBSchema {
  conversations: { key: ConversationId; value: unknown };
  messages: { key: MessageId; value: unknown; indexes: { conversation: ConversationId } };
}

export const NAME = "llm-gateway.conversations";
const VERSION = 1;
const BATCH = 1000;

export interface Events {
  /** Another tab holds an older version of the database open: this waits until it is closed. */
  readonly onBlocked: () => void;
  /** A newer version of this page wants the database: it was closed here. */
  readonly onOutdated: () => void;
  /** The browser closed it: its data were deleted, or the disk failed. */
  readonly onLost: () => void;
}

/** Open the database. Throws what IndexedDB throws where it is forbidden, DOMException mostly. */
export async function openDatabase(events: Events, version = VERSION): Promise<Database> {
  const db = await openDB<Schema>(NAME, version, {
    upgrade(database, before) {
      // One step per version, each from the one before it; no `else`.
      if (before < 1) {
        database.createObjectStore("conversations", { keyPath: "id" });
        const messages = database.createObjectStore("messages", { keyPath: "id" });
        messages.createIndex("conversation", "conversation");
      }
    },
    blocked: events.onBlocked,
    blocking(_current, _wanted, event) {
      (event.target as IDBDatabase | null)?.close();
      events.onOutdated();
    },
    terminated: events.onLost,
  });
  return new Kept(db);
}

class Kept implements Database {
  readonly lasting = true;
  readonly #db: IDBPDatabase<Schema>;

  constructor(db: IDBPDatabase<Schema>) {
    this.#db = db;
  }

  async conversations(): Promise<Found<Conversation>> {
    return understood(await this.#db.getAll("conversations"), conversationFrom);
  }

  async conversation(id: ConversationId): Promise<Conversation | null> {
    return conversationFrom(await this.#db.get("conversations", id));
  }

  async messagesOf(id: ConversationId): Promise<Found<Message>> {
    return understood(await this.#db.getAllFromIndex("messages", "conversation", id), messageFrom);
  }

  async messages(ids: readonly MessageId[]): Promise<readonly Message[]> {
    const store = this.#db.transaction("messages").store;
    return understood(await Promise.all(ids.map((id) => store.get(id))), messageFrom).records;
  }

  async *allMessages(): AsyncGenerator<readonly Message[]> {
    let range: IDBKeyRange | undefined;
    for (;;) {
      const values = await this.#db.getAll("messages", range, BATCH);
      const last = values.at(-1);
      if (!isObject(last)) return;
      yield understood(values, messageFrom).records;
      range = IDBKeyRange.lowerBound(last["id"], true); // which all have, being kept by it
    }
  }

  async write({ added, changed, messages }: Changes): Promise<readonly ConversationId[]> {
    const transaction = this.#db.transaction(["conversations", "messages"], "readwrite");
    const conversations = transaction.objectStore("conversations");
    const gone = new Set<ConversationId>();
    // Requests of one transaction keep their order, so none waits for the one before it.
    const work = async (): Promise<void> => {
      const said = new Set(messages.map((one) => one.conversation));
      for (const one of added) said.delete(one.id);
      await Promise.all([
        ...added.map((one) => conversations.put(one)),
        ...Array.from(changed, async ([id, fields]) => {
          const before = conversationFrom(await conversations.get(id));
          if (before === null) gone.add(id);
          else await conversations.put({ ...before, ...fields });
        }),
        ...Array.from(said, async (id) => {
          if ((await conversations.getKey(id)) === undefined) gone.add(id);
        }),
      ]);
      const kept = messages.filter((one) => !gone.has(one.conversation));
      await Promise.all(kept.map((one) => transaction.objectStore("messages").put(one)));
    };
    try {
      await work();
      await transaction.done;
    } catch (error) {
      abort(transaction);
      await transaction.done.catch(() => undefined);
      throw transaction.error ?? error; // which says why it was aborted
    }
    return [...gone];
  }

  async remove(ids: readonly ConversationId[]): Promise<void> {
    const transaction = this.#db.transaction(["conversations", "messages"], "readwrite");
    const messages = transaction.objectStore("messages");
    const work = ids.map(async (id) => {
      const keys = await messages.index("conversation").getAllKeys(id);
      await Promise.all(keys.map((key) => messages.delete(key)));
      await transaction.objectStore("conversations").delete(id);
    });
    await Promise.all([...work, transaction.done]);
  }

  async clear(): Promise<void> {
    const transaction = this.#db.transaction(["conversations", "messages"], "readwrite");
    await Promise.all([
      transaction.objectStore("conversations").clear(),
      transaction.objectStore("messages").clear(),
      transaction.done,
    ]);
  }

  close(): void {
    this.#db.close();
  }
}

function abort(transaction: { abort(): void }): void {
  try {
    transaction.abort();
  } catch {
    // it was aborted already
  }
}

function understood<T>(values: readonly unknown[], read: (value: unknown) => T | null): Found<T> {
  const present = values.filter((value) => value !== undefined);
  const records = present.map(read).filter((one) => one !== null);
  return { records, unreadable: present.length - records.length };
}

/** The same in memory: for a private window that has no IndexedDB. */
export class InMemory implements Database {
  readonly lasting = false;
  readonly #conversations = new Map<ConversationId, Conversation>();
  readonly #messages = new Map<MessageId, Message>();

  async conversations(): Promise<Found<Conversation>> {
    return { records: [...this.#conversations.values()], unreadable: 0 };
  }

  async conversation(id: ConversationId): Promise<Conversation | null> {
    return this.#conversations.get(id) ?? null;
  }

  async messagesOf(id: ConversationId): Promise<Found<Message>> {
    const all = [...this.#messages.values()];
    return { records: all.filter((one) => one.conversation === id), unreadable: 0 };
  }

  async messages(ids: readonly MessageId[]): Promise<readonly Message[]> {
    return ids.map((id) => this.#messages.get(id)).filter((one) => one !== undefined);
  }

  async *allMessages(): AsyncGenerator<readonly Message[]> {
    yield [...this.#messages.values()];
  }

  async write({ added, changed, messages }: Changes): Promise<readonly ConversationId[]> {
    const gone = new Set<ConversationId>();
    for (const one of added) this.#conversations.set(one.id, one);
    for (const [id, fields] of changed) {
      const before = this.#conversations.get(id);
      if (before === undefined) gone.add(id);
      else this.#conversations.set(id, { ...before, ...fields });
    }
    for (const one of messages) {
      if (this.#conversations.has(one.conversation)) this.#messages.set(one.id, one);
      else gone.add(one.conversation);
    }
    return [...gone];
  }

  async remove(ids: readonly ConversationId[]): Promise<void> {
    const removed = new Set(ids);
    for (const id of ids) this.#conversations.delete(id);
    for (const [id, one] of this.#messages)
      if (removed.has(one.conversation)) this.#messages.delete(id);
  }

  async clear(): Promise<void> {
    this.#conversations.clear();
    this.#messages.clear();
  }

  close(): void {
    // nothing is open
  }
}
