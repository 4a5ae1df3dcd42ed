/** What a person does in a conversation: asks, edits, asks again, lets it go on. */

import { store } from "../../conversations/conversations";
import type { Opened } from "../../conversations/store";
import { editAndBranch, path } from "../../conversations/tree";
import { newId, type Image, type Message } from "../../conversations/types";
import type { ListedModel } from "../../gateway/types";
import { noteAnswer } from "./first";
import { run } from "./run";

const LAST = "llm-gateway.last-model";

/** The model that was asked last in this browser. */
export function lastModel(): string | null {
  try {
    return localStorage.getItem(LAST);
  } catch {
    return null;
  }
}

function keepLastModel(name: string): void {
  try {
    localStorage.setItem(LAST, name);
  } catch {
    // then a new conversation begins with another one
  }
}

/** The personality that is asked: the conversation's, if the model has it. */
export function personalityOf({ conversation }: Opened, model: ListedModel): string | null {
  const { personality } = conversation;
  return personality !== null && model.personalities?.includes(personality) ? personality : null;
}

/** Ask something new, behind what is shown. */
export function askNew(
  opened: Opened,
  model: ListedModel,
  text: string,
  images: readonly Image[],
): void {
  const { id, leaf } = opened.conversation;
  const said = path(opened.messages, leaf).at(-1);
  const question: Message = {
    id: newId(),
    conversation: id,
    parent: leaf,
    role: "user",
    content: text,
    images,
    created: after(said),
  };
  store.put(question);
  answer(model, question);
}

/** Ask a question in other words, on a branch of its own. */
export function askEdited(
  opened: Opened,
  model: ListedModel,
  message: Message,
  text: string,
): void {
  const question = editAndBranch(opened.messages, message.id, { content: text });
  store.put(question);
  answer(model, question);
}

/** Have the question before an answer answered once more; or one that has no answer. */
export function askAgain(opened: Opened, model: ListedModel, message: Message): void {
  const question =
    message.role === "user" ? message : opened.messages.get(message.parent ?? message.id);
  if (question?.role === "user") answer(model, question);
}

function answer(model: ListedModel, question: Message): void {
  const opened = store.opened.peek();
  if (opened === null) return;
  const personality = personalityOf(opened, model);
  const message: Message = {
    id: newId(),
    conversation: question.conversation,
    parent: question.id,
    role: "assistant",
    content: "",
    images: [],
    model: model.id,
    ...(personality !== null && { personality }),
    created: after(question),
  };
  write(opened, model, message);
}

/** Let a model write on behind an answer that isn't whole. */
export function goOn(opened: Opened, model: ListedModel, message: Message): void {
  write(opened, model, message);
}

function write(opened: Opened, model: ListedModel, message: Message): void {
  const { messages } = opened;
  keepLastModel(model.id);
  void run({
    conversation: { ...opened.conversation, personality: personalityOf(opened, model) },
    model: model.id,
    personalities: (model.personalities?.length ?? 0) > 0,
    remote: model.remote === true,
    path: path(messages, message.parent),
    message,
  }).then(() => {
    noteAnswer(message.id);
  });
}

/** Now, and later than what it follows, though clocks go back. */
function after(message: Message | undefined): number {
  return Math.max(Date.now(), (message?.created ?? 0) + 1);
}
