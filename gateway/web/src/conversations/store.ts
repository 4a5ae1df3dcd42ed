/**
 * Conversations as the screen sees them: signals that change at once, written a moment later.
 *
 * What is written while an answer streams is at most half a second old, so that a reload in the
 * midst of it loses no more.
 */

import type { ReadonlySignal } from "@preact/signals";
import { unknownOf, type Added } from "./added";
import { Connection } from "./connection";
import { NAME, type Database, type Whole } from "./database";
import { freshConversation, type New } from "./fresh";
import type { Opened } from "./opened";
import type { Pending } from "./pending";
import { Shown } from "./shown";
import { Tabs, type News } from "./tabs";
import { titleFrom } from "./title";
import { add, leafOf } from "./tree";
import type { Trouble } from "./trouble";
import {
  type Conversation,
  type ConversationId,
  type Message,
  type MessageId,
  type Messages,
} from "./types";
import { Watchers, type OnRemove, type Watcher } from "./watchers";
import { Writing } from "./writing";

export type { Added } from "./added";
export type { New } from "./fresh";
export type { Opened } from "./opened";
export type { Trouble } from "./trouble";
export type { Removal } from "./watchers";

export class ConversationStore {
  readonly #shown = new Shown();
  readonly #watchers = new Watchers();
  readonly #said = new Set<MessageId>();
  readonly #address: () => string;
  readonly #tabs: Tabs;
  readonly #connection: Connection;
  readonly #writing: Writing;
  #started: Promise<void> | null = null;
  #wanted: ConversationId | null = null;

  /** `address`: of the box in use. */
  constructor(address: () => string) {
    this.#address = address;
    this.#connection = new Connection(this.#shown.trouble, () =>
      this.#readAll().catch(this.#shown.cantList),
    );
    this.#writing = new Writing(
      () => this.#db,
      this.#shown.trouble,
      (written, gone) => this.#written(written, gone),
    );
    this.#tabs = new Tabs(NAME, (news) => {
      this.#hear(news).catch(this.#shown.cantList);
    });
  }

  /** All conversations, the one that something was said in last first. */
  readonly list: ReadonlySignal<readonly Conversation[]> = this.#shown.list;
  /** Whether the list has been read. */
  readonly ready: ReadonlySignal<boolean> = this.#shown.ready;
  /** The conversation that is open; `null` while it is being read. */
  readonly opened: ReadonlySignal<Opened | null> = this.#shown.opened;
  /** One that was to be opened, and is not there (any more). */
  readonly missing: ReadonlySignal<ConversationId | null> = this.#shown.missing;
  /** Whether the one that was to be opened could not be read; `again` tries once more. */
  readonly unopened: ReadonlySignal<boolean> = this.#shown.unopened;
  /** Why what is shown may not be kept, or be all. */
  readonly trouble: ReadonlySignal<Trouble | null> = this.#shown.trouble;
  /** How many records could not be understood, and are left out. */
  readonly unreadable: ReadonlySignal<number> = this.#shown.unreadable;

  /** Read the list, if that hasn't happened yet. Never throws: `trouble` says what is wrong. */
  start(): Promise<void> {
    if (this.#started === null) {
      addEventListener("pagehide", this.#leaving);
      document.addEventListener("visibilitychange", this.#leaving);
      this.#started = this.#readList().catch((error: unknown) => {
        this.#started = null; // the next one tries again
        this.#shown.cantList(error);
      });
    }
    return this.#started;
  }

  /** Try once more what could not be written or read. */
  async again(): Promise<void> {
    await this.flush();
    if (this.#started === null) await this.start();
    else if (this.#shown.unlisted) await this.#readAll().catch(this.#shown.cantList);
    if (this.#shown.unopened.peek() && this.#wanted !== null) await this.open(this.#wanted);
  }

  readonly #leaving = (): void => void this.flush();

  get #db(): Promise<Database> {
    return this.#connection.database;
  }

  async #readList(): Promise<void> {
    const { records, unreadable } = await (await this.#db).conversations();
    const all = new Map([...records, ...this.#writing.added].map((one) => [one.id, one]));
    this.#shown.setList([...all.values()], unreadable);
  }

  /** Open a conversation that isn't kept before something is said in it. */
  openNew(fields: New = {}): Conversation {
    const fresh = freshConversation(fields, this.#address());
    this.#wants(fresh.conversation.id);
    this.#shown.opened.value = fresh;
    return fresh.conversation;
  }

  #wants(id: ConversationId): void {
    this.#wanted = id;
    this.#shown.opening();
  }

  /**
   * Open a conversation of the list. `missing` says if it isn't there, `unopened` if it can't be
   * read. Never throws.
   */
  async open(id: ConversationId): Promise<void> {
    this.#wants(id);
    if (this.#shown.opened.peek()?.conversation.id === id) return;
    this.#shown.opened.value = null;
    try {
      await this.#read(id);
    } catch {
      if (this.#wanted !== id) return; // nobody waits for it any more
      this.#shown.cantOpen();
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
    const known = this.#shown.find(id) ?? conversation;
    if (known === null) {
      this.#shown.missing.value = id;
      return;
    }
    const unwritten = this.#writing.messages(id);
    const messages: Messages = new Map(
      [...found.records, ...unwritten].map((one) => [one.id, one]),
    );
    this.#shown.unreadable.value += found.unreadable;
    const leaf = leafOf(messages, known.leaf);
    const deleted = conversation === null && unwritten.length === 0;
    this.#shown.opened.value = {
      conversation: { ...known, leaf },
      messages,
      fresh: false,
      deleted,
    };
  }

  /** Change a conversation: its title, pin, model, settings, leaf. */
  change(id: ConversationId, fields: Partial<Omit<Conversation, "id">>): void {
    const opened = this.#shown.opened.peek();
    if (opened?.conversation.id === id)
      this.#shown.opened.value = { ...opened, conversation: { ...opened.conversation, ...fields } };
    if (opened?.conversation.id === id && (opened.fresh || opened.deleted)) return;
    this.#shown.change(id, fields);
    this.#writing.change(id, fields);
    this.#writing.later();
  }

  /**
   * Add a message to its conversation, or change it while it is being written.
   *
   * A new one becomes the conversation's leaf. It need not be the one that is open: an answer goes
   * on while the person looks at another.
   */
  put(message: Message): void {
    const id = message.conversation;
    const opened = this.#shown.opened.peek();
    const here = opened?.conversation.id === id ? opened : null;
    const isNew = !this.#said.has(message.id) && here?.messages.has(message.id) !== true;
    this.#said.add(message.id);
    if (here) this.#shown.opened.value = { ...here, messages: add(here.messages, message) };
    if (isNew) this.#grow(message, here);
    this.#writing.put(message);
    if (isNew || message.finish !== undefined || message.error !== undefined) void this.flush();
    else this.#writing.later();
  }

  /** A conversation by one message more. */
  #grow(message: Message, here: Opened | null): void {
    const id = message.conversation;
    const known = here?.conversation ?? this.#shown.find(id);
    const fields: Partial<Conversation> = {
      leaf: message.id,
      updated: Date.now(),
      box: this.#address(),
      ...(known?.title === "" && message.role === "user" && { title: titleFrom(message.content) }),
    };
    if (here?.fresh || (here?.deleted && message.role === "user")) {
      const conversation = { ...here.conversation, ...fields };
      const messages = add(here.messages, message);
      this.#shown.opened.value = { conversation, messages, fresh: false, deleted: false };
      this.#shown.put([conversation]);
      this.#writing.add(conversation);
      for (const one of here.messages.values()) this.#writing.put(one);
    } else {
      this.change(id, fields);
    }
  }

  /** Write what isn't written yet. Never throws: `trouble` says what is wrong. */
  flush(): Promise<void> {
    return this.#writing.flush();
  }

  #written(written: Pending, gone: readonly ConversationId[]): void {
    this.#shown.markGone(gone);
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
    this.#watchers.tell([...conversations, ...messages.map((one) => one.conversation)]);
  }

  /**
   * Delete conversations.
   *
   * Returns what brings them back.
   */
  async remove(ids: readonly ConversationId[]): Promise<() => Promise<void>> {
    const back = await this.#watchers.removing({ ids, here: true });
    await this.flush();
    const database = await this.#db;
    const before: Whole[] = [];
    for await (const one of this.wholes(ids)) before.push(one);
    this.#writing.forget(ids);
    await database.remove(ids);
    this.#shown.drop(ids);
    this.#tabs.tell({ kind: "removed", conversations: ids });
    this.#watchers.tell(ids);
    await this.#writing.flushWithRoom();
    return async () => {
      back();
      await this.#restore(before);
    };
  }

  async #restore(before: readonly Whole[]): Promise<void> {
    for (const { conversation, messages } of before) {
      this.#writing.add(conversation);
      for (const one of messages) this.#writing.put(one);
    }
    this.#shown.put(before.map((one) => one.conversation));
    await this.flush();
  }

  /** Delete all of this browser. */
  async removeAll(): Promise<void> {
    await this.#watchers.removing({ ids: null, here: true });
    await this.flush();
    this.#writing.forgetAll();
    await (await this.#db).clear();
    this.#shown.list.value = [];
    if (this.#shown.opened.peek()?.fresh === false) this.#shown.opened.value = null;
    this.#shown.unreadable.value = 0;
    this.#tabs.tell({ kind: "all" });
    this.#watchers.tell(null);
    await this.#writing.flushWithRoom();
  }

  /** Conversations with their messages, one after the other; all of the list without `ids`. */
  async *wholes(ids?: readonly ConversationId[]): AsyncGenerator<Whole> {
    await this.flush();
    const database = await this.#db;
    for (const id of ids ?? this.#shown.list.peek().map((one) => one.id)) {
      const conversation = this.#shown.find(id) ?? (await database.conversation(id));
      if (conversation === null) continue;
      const { records } = await database.messagesOf(id);
      const messages = new Map(records.map((one) => [one.id, one]));
      for (const one of this.#writing.messages(id)) messages.set(one.id, one);
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
    const added = await unknownOf(wholes, this.#shown.list.peek(), database);
    const conversations = added.map((one) => one.conversation);
    await database.write({
      added: conversations,
      changed: new Map(),
      messages: added.flatMap((one) => one.messages),
    });
    this.#shown.put(conversations);
    this.#tabs.tell({ kind: "all" });
    this.#watchers.tell(conversations.map((one) => one.id));
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
  watch(watcher: Watcher): () => void {
    return this.#watchers.watch(watcher);
  }

  /** Be told before conversations are deleted here, and after they were in another tab. */
  onRemove(remover: OnRemove): () => void {
    return this.#watchers.onRemove(remover);
  }

  async #hear(news: News): Promise<void> {
    if (this.#started === null) return; // it will be read when it is wanted
    if (news.kind === "all") return this.#readAll();
    if (news.kind === "removed") {
      this.#writing.forget(news.conversations);
      this.#shown.markGone(news.conversations);
      this.#watchers.tell(news.conversations);
      await this.#watchers.removing({ ids: news.conversations, here: false });
      await this.#writing.flushWithRoom();
      return;
    }
    const database = await this.#db;
    const changed = await Promise.all(news.conversations.map((id) => database.conversation(id)));
    const theirs = changed
      .filter((one) => one !== null)
      .map((one) => ({ ...one, ...this.#writing.changed(one.id) }));
    const ids = new Set(theirs.map((one) => one.id));
    this.#shown.put(theirs);
    const open = this.#shown.opened.peek()?.conversation.id;
    const said = news.messages.filter(([id]) => id === open).map(([, id]) => id);
    this.#merge(theirs, await database.messages(said));
    this.#watchers.tell([...ids, ...news.messages.map(([id]) => id)]);
  }

  #merge(conversations: readonly Conversation[], messages: readonly Message[]): void {
    const mine = new Set(this.#writing.messages().map((one) => one.id));
    this.#shown.merge(conversations, messages, mine);
  }

  async #readAll(): Promise<void> {
    const before = this.#shown.list.peek().map((one) => one.id);
    await this.#readList();
    this.#watchers.tell(null);
    const listed = new Set(this.#shown.list.peek().map((one) => one.id));
    const ids = before.filter((one) => !listed.has(one));
    if (ids.length > 0) void this.#watchers.removing({ ids, here: false });
    const opened = this.#shown.opened.peek();
    if (opened === null || opened.fresh) return;
    const id = opened.conversation.id;
    const database = await this.#db;
    const conversation = await database.conversation(id);
    if (conversation === null) this.#shown.markGone([id]);
    else this.#merge([conversation], (await database.messagesOf(id)).records);
  }

  /** Let go of the database and of other tabs, for tests. */
  async close(): Promise<void> {
    await this.flush();
    removeEventListener("pagehide", this.#leaving);
    document.removeEventListener("visibilitychange", this.#leaving);
    this.#tabs.close();
    await this.#connection.close();
  }
}
