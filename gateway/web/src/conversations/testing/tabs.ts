/** Stores as tabs have them, over an IndexedDB in memory; for tests. */

import "fake-indexeddb/auto";
import { Blob as NodeBlob } from "node:buffer";
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, vi } from "vitest";
import type { Whole } from "../database";
import { ConversationStore } from "../store";
import { path } from "../tree";
import { newId, type ConversationId, type Message, type MessageId } from "../types";

let tabs: ConversationStore[] = [];

export async function tab(): Promise<ConversationStore> {
  const store = new ConversationStore(() => "https://box.example");
  tabs.push(store);
  await store.start();
  return store;
}

/** Give each test of the file a database of its own, and close its tabs. */
export function eachWithItsDatabase(): void {
  beforeEach(() => {
    vi.stubGlobal("indexedDB", new IDBFactory());
    vi.stubGlobal("Blob", NodeBlob); // the one that structuredClone knows
  });

  afterEach(async () => {
    await Promise.all(tabs.map((one) => one.close()));
    tabs = [];
    vi.restoreAllMocks();
    vi.unstubAllGlobals();
  });
}

let clock = 1000;

export function said(
  conversation: ConversationId,
  parent: MessageId | null,
  content: string,
  more: Partial<Message> = {},
): Message {
  const role = parent === null ? "user" : "assistant";
  clock += 1;
  return { id: newId(), conversation, parent, role, content, images: [], created: clock, ...more };
}

/** A conversation of a question and its answer. */
export async function asked(
  store: ConversationStore,
  question = "Where?",
  answer = "There.",
): Promise<Message[]> {
  const { id } = store.openNew({ model: "smol" });
  const first = said(id, null, question);
  const second = said(id, first.id, answer, { finish: "stop" });
  store.put(first);
  store.put(second);
  await store.flush();
  return [first, second];
}

export const shown = (store: ConversationStore): string[] => {
  const opened = store.opened.value;
  return opened === null
    ? []
    : path(opened.messages, opened.conversation.leaf).map((one) => one.content);
};

export const titles = (store: ConversationStore): string[] =>
  store.list.value.map((one) => one.title);

/** All that a store has. */
export async function collected(store: ConversationStore): Promise<Whole[]> {
  const found: Whole[] = [];
  for await (const one of store.wholes()) found.push(one);
  return found;
}
