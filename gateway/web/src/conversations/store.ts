/**
 * Conversations as the screen sees them: signals that change at once, written a moment later.
 *
 * What is written while an answer streams is at most half a second old, so that a reload in the
 * midst of it loses no more. What can't be written stays here and is tried again with the next.
 */

import { signal, type ReadonlySignal } from "@preact/signals";
import { InMemory, NAME, openDatabase, type Database, type Whole } from "./database";
import { merged, type Opened } from "./opened";
import { Pending } from "./pending";
import { renewed } from "./renewed";
import { Tabs, type News } from "./tabs";
import { titleFrom } from "./title";
import { add, leafOf } from "./tree";
import {
  newId,
  type Conversation,
  type ConversationId,
  type Message,
  type MessageId,
  type Messages,
  type Settings,
} from "./types";

/** Milliseconds that a change may wait for others. */
const PATIENCE = 500;

/** Why what is shown may not be kept; texts/en/conversations.ts has the words. */
export type Trouble = "not-kept" | "full" | "blocked" | "outdated" | "failed" | "unread";

export type { Opened } from "./opened";

export interface New {
  readonly model?: string | null;
  readonly personality?: string | null;
  readonly settings?: Settings;
}

export interface Added {
  readonly conversations: number;
  /** Those that were here already, as they are. */
  readonly known: number;
}

/** Conversations that are deleted. */
export interface Removal {
  /** `null`: all. */
  readonly ids: readonly ConversationId[] | null;
  /** Whether they are deleted here, or were by another tab. */
  readonly here: boolean;
}

/** Lets go of what belongs to them. Returns what brings it back with them. */
type OnRemove = (removal: Removal) => Promise<() => void>;

export class ConversationStore {
  readonly #list = signal<readonly Conversation[]>([]);
  readonly #ready = signal(false);
  readonly #opened = signal<Opened | null>(null);
  readonly #missing = signal<ConversationId | null>(null);
  readonly #trouble = signal<Trouble | null>(null);
  readonly #unopened = signal(false);
  readonly #unreadable = signal(0);
  readonly #watchers = new Set<(ids: readonly ConversationId[] | null) => void>();
  readonly #removers = new Set<OnRemove>();
  readonly #said = new Set<MessageId>();
  readonly #address: () => string;
  readonly #tabs: Tabs;
  #database: Promise<Database> | null = null;
  #pending = new Pending();
  #inFlight: Pending | null = null;
  #writing: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #started: Promise<void> | null = null;
  #wanted: ConversationId | null = null;
  /** Whether the list, or what others did to it, could not be read. */
  #unlisted = false;

  /** `address`: of the box in use. */
  constructor(address: () => string) {
    this.#address = address;
    this.#tabs = new Tabs(NAME, (news) => {
      this.#hear(news).catch(this.#cantList);
    });
  }

  /** All conversations, the one that something was said in last first. */
  get list(): ReadonlySignal<readonly Conversation[]> {
    return this.#list;
  }

  /** Whether the list has been read. */
  get ready(): ReadonlySignal<boolean> {
    return this.#ready;
  }

  /** The conversation that is open; `null` while it is being read. */
  get opened(): ReadonlySignal<Opened | null> {
    return this.#opened;
  }

  /** One that was to be opened, and is not there (any more). */
  get missing(): ReadonlySignal<ConversationId | null> {
    return this.#missing;
  }

  /** Whether the one that was to be opened could not be read; `again` tries once more. */
  get unopened(): ReadonlySignal<boolean> {
    return this.#unopened;
  }

  get trouble(): ReadonlySignal<Trouble | null> {
    return this.#trouble;
  }

  /** How many records could not be understood, and are left out. */
  get unreadable(): ReadonlySignal<number> {
    return this.#unreadable;
  }

  /** Read the list, if that hasn't happened yet. Never throws: `trouble` says what is wrong. */
  start(): Promise<void> {
    if (this.#started === null) {
      addEventListener("pagehide", this.#leaving);
      document.addEventListener("visibilitychange", this.#leaving);
      this.#started = this.#readList().catch((error: unknown) => {
        this.#started = null; // the next one tries again
        this.#cantList(error);
      });
    }
    return this.#started;
  }

  /** Try once more what could not be written or read. */
  async again(): Promise<void> {
    await this.flush();
    if (this.#started === null) await this.start();
    else if (this.#unlisted) await this.#readAll().catch(this.#cantList);
    if (this.#unopened.peek() && this.#wanted !== null) await this.open(this.#wanted);
  }

  readonly #cantList = (_: unknown): void => {
    this.#unlisted = true;
    this.#readOrNot();
  };

  /** Say whether something could not be read. */
  #readOrNot(): void {
    const trouble = this.#trouble.peek();
    if (this.#unlisted || this.#unopened.peek()) {
      if (trouble !== "outdated") this.#trouble.value = "unread";
    } else if (trouble === "unread") this.#trouble.value = null;
  }

  readonly #leaving = (): void => void this.flush();

  #open(): Promise<Database> {
    this.#database = openDatabase({
      onBlocked: () => (this.#trouble.value = "blocked"),
      onOutdated: () => (this.#trouble.value = "outdated"),
      onLost: () => {
        this.#open()
          .then(() => this.#readAll())
          .catch(this.#cantList);
      },
    }).then(
      (database) => {
        if (this.#trouble.peek() === "blocked") this.#trouble.value = null;
        return database;
      },
      () => {
        this.#trouble.value = "not-kept";
        return new InMemory();
      },
    );
    return this.#database;
  }

  get #db(): Promise<Database> {
    return this.#database ?? this.#open();
  }

  async #readList(): Promise<void> {
    const { records, unreadable } = await (await this.#db).conversations();
    const pending = this.#unwritten.flatMap((one) => one.added);
    const all = new Map([...records, ...pending].map((one) => [one.id, one]));
    this.#unreadable.value = unreadable;
    this.#list.value = sorted([...all.values()]);
    this.#ready.value = true;
    this.#unlisted = false;
    this.#readOrNot();
  }

  get #unwritten(): readonly Pending[] {
    return this.#inFlight ? [this.#inFlight, this.#pending] : [this.#pending];
  }

  /** Open a conversation that isn't kept before something is said in it. */
  openNew(fields: New = {}): Conversation {
    const now = Date.now();
    const conversation: Conversation = {
      id: newId(),
      title: "",
      pinned: false,
      created: now,
      updated: now,
      model: fields.model ?? null,
      personality: fields.personality ?? null,
      settings: fields.settings ?? {},
      leaf: null,
      box: this.#address(),
    };
    this.#wants(conversation.id);
    this.#opened.value = { conversation, messages: new Map(), fresh: true, deleted: false };
    return conversation;
  }

  #wants(id: ConversationId): void {
    this.#wanted = id;
    this.#missing.value = null;
    this.#unopened.value = false;
    this.#readOrNot();
  }

  /**
   * Open a conversation of the list. `missing` says if it isn't there, `unopened` if it can't be
   * read. Never throws.
   */
  async open(id: ConversationId): Promise<void> {
    this.#wants(id);
    if (this.#opened.peek()?.conversation.id === id) return;
    this.#opened.value = null;
    try {
      await this.#read(id);
    } catch {
      if (this.#wanted !== id) return; // nobody waits for it any more
      this.#unopened.value = true;
      this.#readOrNot();
    }
  }

  async #read(id: ConversationId): Promise<void> {
    await this.flush();
    const database = await this.#db;
    const [conversation, found] = await Promise.all([
      database.conversation(id),
      database.messagesOf(id),
    ]);
    if (this.#wanted !== id) return; // another one was opened meanwhile
    const known = this.#list.peek().find((one) => one.id === id) ?? conversation;
    if (known === null) {
      this.#missing.value = id;
      return;
    }
    const unwritten = this.#unwritten.flatMap((one) => one.of(id));
    const messages: Messages = new Map(
      [...found.records, ...unwritten].map((one) => [one.id, one]),
    );
    this.#unreadable.value += found.unreadable;
    const leaf = leafOf(messages, known.leaf);
    const deleted = conversation === null && unwritten.length === 0;
    this.#opened.value = {
      conversation: { ...known, leaf },
      messages,
      fresh: false,
      deleted,
    };
  }

  /** Change a conversation: its title, pin, model, settings, leaf. */
  change(id: ConversationId, fields: Partial<Omit<Conversation, "id">>): void {
    const opened = this.#opened.peek();
    if (opened?.conversation.id === id)
      this.#opened.value = { ...opened, conversation: { ...opened.conversation, ...fields } };
    if (opened?.conversation.id === id && (opened.fresh || opened.deleted)) return;
    this.#list.value = sorted(
      this.#list.peek().map((one) => (one.id === id ? { ...one, ...fields } : one)),
    );
    this.#pending.change(id, fields);
    this.#later();
  }

  /**
   * Add a message to its conversation, or change it while it is being written.
   *
   * A new one becomes the conversation's leaf. It need not be the one that is open: an answer goes
   * on while the person looks at another.
   */
  put(message: Message): void {
    const id = message.conversation;
    const opened = this.#opened.peek();
    const here = opened?.conversation.id === id ? opened : null;
    const isNew = !this.#said.has(message.id) && here?.messages.has(message.id) !== true;
    this.#said.add(message.id);
    if (here) this.#opened.value = { ...here, messages: add(here.messages, message) };
    if (isNew) this.#grow(message, here);
    this.#pending.put(message);
    if (isNew || message.finish !== undefined || message.error !== undefined) void this.flush();
    else this.#later();
  }

  /** A conversation by one message more. */
  #grow(message: Message, here: Opened | null): void {
    const id = message.conversation;
    const known = here?.conversation ?? this.#list.peek().find((one) => one.id === id);
    const fields: Partial<Conversation> = {
      leaf: message.id,
      updated: Date.now(),
      box: this.#address(),
      ...(known?.title === "" && message.role === "user" && { title: titleFrom(message.content) }),
    };
    if (here?.fresh || (here?.deleted && message.role === "user")) {
      const conversation = { ...here.conversation, ...fields };
      const messages = add(here.messages, message);
      this.#opened.value = { conversation, messages, fresh: false, deleted: false };
      this.#list.value = sorted([...this.#list.peek(), conversation]);
      this.#pending.add(conversation);
      for (const one of here.messages.values()) this.#pending.put(one);
    } else {
      this.change(id, fields);
    }
  }

  #later(): void {
    this.#timer ??= setTimeout(() => void this.flush(), PATIENCE);
  }

  /** Write what isn't written yet. Never throws: `trouble` says what is wrong. */
  flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async #write(): Promise<void> {
    const taken = this.#pending;
    if (taken.empty) return;
    this.#pending = new Pending();
    this.#inFlight = taken;
    try {
      const gone = await (await this.#db).write(taken);
      this.#gone(gone);
      this.#tell(taken, gone);
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

  #tell(written: Pending, gone: readonly ConversationId[]): void {
    const left = new Set(gone);
    const messages = written.messages.filter((one) => !left.has(one.conversation));
    const conversations = new Set([
      ...written.added.map((one) => one.id),
      ...written.changed.keys(),
    ]);
    for (const id of left) conversations.delete(id);
    this.#tabs.tell({
      kind: "changed",
      conversations: [...conversations],
      messages: messages.map((one) => [one.conversation, one.id] as const),
    });
    this.#watched([...conversations, ...messages.map((one) => one.conversation)]);
  }

  /** Conversations that another tab deleted. */
  #gone(ids: readonly ConversationId[]): void {
    if (ids.length === 0) return;
    const gone = new Set(ids);
    this.#list.value = this.#list.peek().filter((one) => !gone.has(one.id));
    const opened = this.#opened.peek();
    if (opened && gone.has(opened.conversation.id))
      this.#opened.value = { ...opened, deleted: true };
  }

  /**
   * Delete conversations.
   *
   * Returns what brings them back.
   */
  async remove(ids: readonly ConversationId[]): Promise<() => Promise<void>> {
    const back = await this.#removing({ ids, here: true });
    await this.flush();
    const removed = new Set(ids);
    const database = await this.#db;
    const before: Whole[] = [];
    for await (const one of this.wholes(ids)) before.push(one);
    this.#pending.forget(removed);
    await database.remove(ids);
    this.#list.value = this.#list.peek().filter((one) => !removed.has(one.id));
    const opened = this.#opened.peek();
    if (opened && removed.has(opened.conversation.id)) this.#opened.value = null;
    this.#tabs.tell({ kind: "removed", conversations: ids });
    this.#watched(ids);
    await this.#madeRoom();
    return async () => {
      back();
      await this.#restore(before);
    };
  }

  async #restore(before: readonly Whole[]): Promise<void> {
    for (const { conversation, messages } of before) {
      this.#pending.add(conversation);
      for (const one of messages) this.#pending.put(one);
    }
    const back = before.map((one) => one.conversation);
    this.#list.value = sorted([...this.#list.peek(), ...back]);
    await this.flush();
  }

  /** Delete all of this browser. */
  async removeAll(): Promise<void> {
    await this.#removing({ ids: null, here: true });
    await this.flush();
    this.#pending = new Pending();
    await (await this.#db).clear();
    this.#list.value = [];
    if (this.#opened.peek()?.fresh === false) this.#opened.value = null;
    this.#unreadable.value = 0;
    this.#tabs.tell({ kind: "all" });
    this.#watched(null);
    await this.#madeRoom();
  }

  /** Write what had no room before; if it has none still, that is told again. */
  async #madeRoom(): Promise<void> {
    if (this.#trouble.peek() !== "full") return;
    this.#trouble.value = null;
    await this.flush();
  }

  /** Conversations with their messages, one after the other; all of the list without `ids`. */
  async *wholes(ids?: readonly ConversationId[]): AsyncGenerator<Whole> {
    await this.flush();
    const database = await this.#db;
    for (const id of ids ?? this.#list.peek().map((one) => one.id)) {
      const conversation =
        this.#list.peek().find((one) => one.id === id) ?? (await database.conversation(id));
      if (conversation === null) continue;
      const { records } = await database.messagesOf(id);
      const messages = new Map(records.map((one) => [one.id, one]));
      for (const one of this.#unwritten.flatMap((some) => some.of(id))) messages.set(one.id, one);
      yield { conversation, messages: [...messages.values()] };
    }
  }

  /**
   * Add conversations of a file. Nothing is overwritten: where an id is taken they get a new one,
   * and those that are here already, with as many messages, are left out.
   *
   * Throws DOMException if the disk is full.
   */
  async addAll(wholes: readonly Whole[]): Promise<Added> {
    await this.flush();
    const database = await this.#db;
    const added: Whole[] = [];
    const taken = new Map(this.#list.peek().map((one) => [one.id, one]));
    for (const whole of wholes) {
      const { conversation, messages } = whole;
      const before = taken.get(conversation.id);
      if (before && before.updated === conversation.updated) {
        const { records } = await database.messagesOf(conversation.id);
        if (records.length === messages.length) continue;
      }
      const one = renewed(whole, before ? newId() : conversation.id);
      taken.set(one.conversation.id, one.conversation);
      added.push(one);
    }
    const conversations = added.map((one) => one.conversation);
    await database.write({
      added: conversations,
      changed: new Map(),
      messages: added.flatMap((one) => one.messages),
    });
    this.#list.value = sorted([...this.#list.peek(), ...conversations]);
    this.#tabs.tell({ kind: "all" });
    this.#watched(conversations.map((one) => one.id));
    return { conversations: added.length, known: wholes.length - added.length };
  }

  /** All messages, in batches, for whoever searches them. */
  async *texts(): AsyncGenerator<readonly Message[]> {
    await this.flush();
    yield* (await this.#db).allMessages();
  }

  async textsOf(id: ConversationId): Promise<readonly Message[]> {
    return (await (await this.#db).messagesOf(id)).records;
  }

  /** Be told of what changed, here or in another tab; `null`: all. Returns what ends it. */
  watch(watcher: (ids: readonly ConversationId[] | null) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Be told before conversations are deleted here, and after they were in another tab. */
  onRemove(remover: OnRemove): () => void {
    this.#removers.add(remover);
    return () => this.#removers.delete(remover);
  }

  async #removing(removal: Removal): Promise<() => void> {
    const back = await Promise.all([...this.#removers].map((one) => one(removal)));
    return () => {
      for (const one of back) one();
    };
  }

  #watched(ids: readonly ConversationId[] | null): void {
    for (const watcher of this.#watchers) watcher(ids);
  }

  async #hear(news: News): Promise<void> {
    if (this.#started === null) return; // it will be read when it is wanted
    if (news.kind === "all") return this.#readAll();
    if (news.kind === "removed") {
      this.#pending.forget(new Set(news.conversations));
      this.#gone(news.conversations);
      this.#watched(news.conversations);
      await this.#removing({ ids: news.conversations, here: false });
      await this.#madeRoom();
      return;
    }
    const database = await this.#db;
    const changed = await Promise.all(news.conversations.map((id) => database.conversation(id)));
    const theirs = changed
      .filter((one) => one !== null)
      .map((one) => ({ ...one, ...this.#pending.changed.get(one.id) }));
    const ids = new Set(theirs.map((one) => one.id));
    this.#list.value = sorted([...this.#list.peek().filter((one) => !ids.has(one.id)), ...theirs]);
    const open = this.#opened.peek()?.conversation.id;
    const said = news.messages.filter(([id]) => id === open).map(([, id]) => id);
    this.#merge(theirs, await database.messages(said));
    this.#watched([...ids, ...news.messages.map(([id]) => id)]);
  }

  /** What another tab did to the conversation that is open here. */
  #merge(conversations: readonly Conversation[], messages: readonly Message[]): void {
    const opened = this.#opened.peek();
    if (opened === null) return;
    const theirs = conversations.find((one) => one.id === opened.conversation.id);
    const mine = new Set(this.#unwritten.flatMap((one) => one.messages).map((one) => one.id));
    this.#opened.value = merged(opened, theirs, messages, mine);
  }

  async #readAll(): Promise<void> {
    const before = this.#list.peek().map((one) => one.id);
    await this.#readList();
    this.#watched(null);
    const listed = new Set(this.#list.peek().map((one) => one.id));
    const ids = before.filter((one) => !listed.has(one));
    if (ids.length > 0) void this.#removing({ ids, here: false });
    const opened = this.#opened.peek();
    if (opened === null || opened.fresh) return;
    const id = opened.conversation.id;
    const database = await this.#db;
    const conversation = await database.conversation(id);
    if (conversation === null) this.#gone([id]);
    else this.#merge([conversation], (await database.messagesOf(id)).records);
  }

  /** Let go of the database and of other tabs, for tests. */
  async close(): Promise<void> {
    await this.flush();
    removeEventListener("pagehide", this.#leaving);
    document.removeEventListener("visibilitychange", this.#leaving);
    this.#tabs.close();
    (await this.#database)?.close();
  }
}

function sorted(list: readonly Conversation[]): readonly Conversation[] {
  return [...list].sort((a, b) => b.updated - a.updated || (a.id < b.id ? -1 : 1));
}

function isQuotaExceeded(error: unknown): boolean {
  return error instanceof Error && error.name === "QuotaExceededError";
}
