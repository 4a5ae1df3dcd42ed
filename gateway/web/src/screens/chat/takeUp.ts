/** Answers that go on at the gateway after the page that asked for them has gone. */

import { useSignalEffect } from "@preact/signals";
import { store } from "../../conversations/conversations";
import type { Message, Messages, Stream } from "../../conversations/types";
import { box, key } from "../../gateway/connection";
import { noteAnswer } from "./first";
import { runs, takeUp } from "./run";

export type Unfinished = Message & { readonly stream: Stream };

/** Whether the rest of an answer can be read on, at the box in use. */
export function isUnfinished(message: Message): message is Unfinished {
  return (
    message.finish === undefined &&
    message.error === undefined &&
    message.stream?.box === box.value?.address
  );
}

/** The answer of a conversation that is to be gone on with: the one that was begun last. */
export function unfinished(messages: Messages): Unfinished | undefined {
  return [...messages.values()].filter(isUnfinished).sort((a, b) => b.created - a.created)[0];
}

/** Streams that were taken up here: what came of that stands in their messages, or nowhere. */
const taken = new Set<Stream["id"]>();

/** Go on with the unfinished answer of the conversation that is open. */
export function useTakeUp(): void {
  useSignalEffect(() => {
    void key.value; // another key may have it
    const opened = store.opened.value;
    if (opened === null || opened.deleted || runs.value.has(opened.conversation.id)) return;
    const message = unfinished(opened.messages);
    if (message === undefined || taken.has(message.stream.id)) return;
    taken.add(message.stream.id);
    void takeUp(message).then(() => noteAnswer(message.id));
  });
}
