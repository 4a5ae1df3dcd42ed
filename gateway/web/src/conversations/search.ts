/** Finding words in titles and texts, without regard to case and accents. Pure. */

import type { Conversation, ConversationId } from "./types";

/** `text` in lower case and without accents, character by character: places stay the same. */
export function fold(text: string): string {
  const lower = text.replace(/[^\0-\x7f]/g, plain);
  return lower.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

function plain(character: string): string {
  const [first = "", ...marks] = character.normalize("NFD");
  const bare = marks.every((one) => /\p{M}/u.test(one)) ? first : character;
  const lower = bare.toLowerCase();
  return lower.length === character.length ? lower : character;
}

/** Words to look for. */
export function wordsIn(query: string): readonly string[] {
  return fold(query).split(/\s+/).filter(Boolean);
}

/** What is searched of a conversation: all that was said in it, and the same folded. */
export interface Text {
  readonly said: string;
  readonly folded: string;
}

/** A stretch of text around the first word found, in pieces: what matches is marked. */
export type Snippet = readonly { readonly text: string; readonly match: boolean }[];

export interface Hit {
  readonly conversation: Conversation;
  /** `null` if its title says it all. */
  readonly snippet: Snippet | null;
}

/**
 * Conversations that have every word of `query` in their title or text, in the order of `list`,
 * those with all of them in the title first.
 */
export function search(
  query: string,
  list: readonly Conversation[],
  texts: ReadonlyMap<ConversationId, Text>,
): readonly Hit[] {
  const words = wordsIn(query);
  const titled: Hit[] = [];
  const others: Hit[] = [];
  for (const conversation of list) {
    const title = fold(conversation.title);
    const missing = words.filter((word) => !title.includes(word));
    if (missing.length === 0) {
      titled.push({ conversation, snippet: null });
      continue;
    }
    const text = texts.get(conversation.id);
    if (text && missing.every((word) => text.folded.includes(word)))
      others.push({ conversation, snippet: snippetOf(text, missing) });
  }
  return [...titled, ...others];
}

const BEFORE = 24;
const AFTER = 96;

export function snippetOf({ said, folded }: Text, words: readonly string[]): Snippet {
  const places = words.map((word) => folded.indexOf(word)).filter((place) => place >= 0);
  const first = Math.min(...places);
  const start = Math.max(0, first - BEFORE);
  const end = Math.min(said.length, first + AFTER);
  const pieces = marked(said.slice(start, end), words);
  return [
    ...(start > 0 ? [{ text: "…", match: false }] : []),
    ...pieces,
    ...(end < said.length ? [{ text: "…", match: false }] : []),
  ];
}

/** `text` in pieces, those that are one of `words` (folded) marked. */
export function marked(text: string, words: readonly string[]): Snippet {
  const folded = fold(text);
  const pieces: { text: string; match: boolean }[] = [];
  let from = 0;
  while (from < text.length) {
    const next = words
      .map((word) => [folded.indexOf(word, from), word.length] as const)
      .filter(([place, length]) => place >= 0 && length > 0)
      .sort(([a, m], [b, n]) => a - b || n - m)[0];
    if (next === undefined) break;
    const [place, length] = next;
    if (place > from) pieces.push({ text: text.slice(from, place), match: false });
    pieces.push({ text: text.slice(place, place + length), match: true });
    from = place + length;
  }
  if (from < text.length) pieces.push({ text: text.slice(from), match: false });
  return pieces;
}
