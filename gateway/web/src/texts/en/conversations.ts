/** Words of the list of conversations, their settings, and their files. */

import { count } from "../../format";
import { counted, plural } from "./plural";

const some = (number: number): string => counted(number, "conversation", "conversations");

export const conversations = {
  title: "Conversations",
  show: "Show conversations",
  hide: "Hide conversations",
  begin: "New chat",
  search: "Search conversations",
  clearSearch: "Clear the search",
  groups: { pinned: "Pinned", today: "Today", yesterday: "Yesterday", earlier: "Earlier" },
  found: (number: number): string => (number === 0 ? "Nothing found" : `${some(number)} found`),
  nothingFound: (query: string): string => `No conversation has “${query}” in its title or text.`,
  searching: "Reading what was said…",
  none: "What you ask appears here.",
  untitled: "Untitled",
  actions: (title: string): string => `Actions for “${title}”`,
  more: "Export, import, delete all",
  rename: "Rename",
  newTitle: "Title",
  pin: "Pin",
  unpin: "Unpin",
  remove: "Delete",
  removed: (title: string): string => `“${title}” was deleted.`,
  cantRemove: "The browser would not delete it. Reload the page and try again.",
  removeAll: "Delete all…",
  removeAllTitle: (number: number): string => `Delete all ${some(number)}?`,
  removeAllText: (where: number): string =>
    where > 1
      ? "They go from this browser, those with your other boxes included. Nothing brings them back: export them first if you may want them."
      : "They go from this browser. Nothing brings them back: export them first if you may want them.",
  removeAllAction: (number: number): string => `Delete ${some(number)}`,
  removedAll: (number: number): string => `${some(number)} deleted.`,
  kept: "Kept in this browser alone. Signing out leaves them here.",
  elsewhere: (box: string): string => `Last asked at ${box}`,
  shown: (shown: number, all: number): string => `${count(shown)} of ${count(all)} shown`,
  missing: "This conversation is not in this browser. Was it deleted, or begun in another one?",
  deleted: "Another tab deleted this conversation. Ask on, and it is kept again.",
  unreadable: (number: number): string =>
    `${counted(number, "record", "records")} of this browser's storage can't be understood, and ${plural(number, "is", "are")} left out.`,
  trouble: {
    "not-kept":
      "This browser lets the page keep nothing, as private windows may. Conversations last until the tab is closed: export what you want to keep.",
    full: "The browser's storage is full: what you say now is not kept. Delete conversations, or make room on the disk.",
    blocked:
      "Another tab has an older version of this page open. Close or reload it, and conversations appear.",
    outdated:
      "A newer version of this page is open in another tab. Reload this one: what you say here is not kept.",
    failed:
      "The browser could not write the conversation. It is tried again with the next message.",
    unread: "The browser could not read what it keeps of conversations.",
  },
  tryAgain: "Try again",
} as const;

export const settings = {
  title: "Settings of this conversation",
  open: "Settings of this conversation",
  changed: "Settings of this conversation (changed)",
  intro: "They go with every request of this conversation. Left empty, the model's own hold.",
  own: "the model's own",
  system: "System prompt",
  systemHint: "How to answer. A personality's own prompt comes before it.",
  temperature: "Temperature",
  temperatureHint: "0 takes the likeliest words, 1 chooses freely, 2 wildly.",
  topP: "Top-p",
  topPHint: "Only the likeliest words that make up this share of the chances.",
  maxTokens: "Longest answer",
  maxTokensHint: "In tokens, of about four letters each.",
  format: "Answers",
  formats: { text: "As text", json: "As JSON", schema: "As JSON by a schema" },
  schema: "JSON Schema",
  schemaHint: "What the answer must look like. Empty: any JSON.",
  schemaExample: '{"type": "object", "properties": {"name": {"type": "string"}}}',
  reasoning: "Thinking",
  reasoningChoices: { own: "The model's own", on: "Think before answering", off: "Answer at once" },
  reset: "Reset to the model's own",
  done: "Done",
  between: ({
    least,
    most,
    whole,
  }: {
    readonly least: number;
    readonly most: number;
    readonly whole: boolean;
  }): string =>
    `${whole ? "A whole number" : "A number"} between ${count(least)} and ${count(most)}, or nothing for the model's own.`,
  notJson: (why: string): string => `This is no JSON: ${why}`,
  noSchema: 'A JSON Schema is an object, like {"type": "object", "properties": {…}}.',
} as const;

export const files = {
  saveJson: "Save as JSON",
  saveMarkdown: "Save as Markdown",
  saveAll: "Export all as JSON",
  load: "Import…",
  saving: (done: number, all: number): string => `${count(done)} of ${count(all)}`,
  cantSave: "The conversations could not be read to be saved.",
  nothingToSave: "There is no conversation to export yet.",
  you: "You",
  answer: "Answer",
  system: "System prompt",
  thinking: "Thinking",
  image: "image",
  title: "Import conversations",
  intro:
    "From a file that was exported here (.json, .md), by llama.cpp's page (.json, .jsonl), by Open WebUI, or by ChatGPT (conversations.json of its archive).",
  intact: "Nothing that is here is overwritten.",
  choose: "Files to import",
  reading: (name: string): string => `Reading ${name}…`,
  added: (number: number): string => `${some(number)} added.`,
  known: (number: number): string => `${counted(number, "was", "were")} here already.`,
  skipped: (number: number): string =>
    `${count(number)} had nothing in ${plural(number, "it", "them")} that can be shown.`,
  done: "Done",
  bad: {
    zip: "This is a ZIP archive. Unpack it, and choose the .json or .jsonl files in it.",
    notJson: "This is no JSON file, nor Markdown that was exported here; or it is a part of one.",
    unknown:
      "This JSON holds no conversations of a kind that is known here: of this page, llama.cpp's, Open WebUI or ChatGPT.",
    newer: (version: number): string =>
      `It was exported by a newer version of this page (format ${count(version)}). Update the gateway first.`,
    empty: "There is no conversation in it.",
    unreadable: "The browser could not read the file.",
    full: "The browser's storage is full. What came before is kept.",
    failed: "The browser could not write what was read.",
  },
  imported: "Imported conversation",
} as const;
