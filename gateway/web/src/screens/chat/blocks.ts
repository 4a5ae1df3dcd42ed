/**
 * Markdown as a list of blocks, so that an answer that grows is not read from its beginning again
 * with each token. Pure.
 *
 * A block is closed once a complete line of another one follows it: what is appended can't change
 * it any more. Only the last one is read again.
 */

import { Lexer, type Token, type TokensList } from "marked";

export type Links = TokensList["links"];

export interface Block {
  /** Its place in the text, by which it is known. */
  readonly at: number;
  readonly raw: string;
  /** A fenced code block at the top level, which is shown as it grows without being read. */
  readonly code: {
    readonly language: string;
    readonly text: string;
    readonly open: boolean;
  } | null;
}

export interface Split {
  readonly text: string;
  readonly blocks: readonly Block[];
  /** Where the open block begins: an index into `text`, and one into `blocks`. */
  readonly openAt: number;
  readonly closed: number;
  readonly links: Links;
  /** The open block is nested too deeply to be read: it stays one, and is shown as it is. */
  readonly unread: boolean;
}

export const EMPTY: Split = {
  text: "",
  blocks: [],
  openAt: 0,
  closed: 0,
  links: {},
  unread: false,
};

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)\n/;

/** Split `text`; `before` is the split of what it began with, or anything else. */
export function split(text: string, before: Split = EMPTY): Split {
  if (text === before.text) return before;
  const start = text.startsWith(before.text) ? before : EMPTY;
  const links = Object.assign(Object.create(null), start.links) as Links;
  const blocks = start.blocks.slice(0, start.closed);
  let openAt = start.openAt;
  let closed = blocks.length;
  const code = openFence(text, openAt);
  if (code) {
    return { text, blocks: [...blocks, code], openAt, closed, links, unread: false };
  }
  const tokens = start.unread ? null : lexed(text.slice(openAt), links);
  if (tokens === null) {
    const rest: Block = { at: openAt, raw: text.slice(openAt), code: null };
    return { text, blocks: [...blocks, rest], openAt, closed, links, unread: true };
  }
  Object.assign(links, tokens.links);
  const lastLine = text.lastIndexOf("\n") + 1;
  let at = openAt;
  for (const [index, token] of tokens.entries()) {
    const ends = at + token.raw.length;
    if (token.type !== "space" && token.type !== "def") blocks.push(blockOf(token, at, text));
    const next = tokens.slice(index + 1).find((one) => one.type !== "space");
    // Closed: the one behind it has a line of its own, and that line is complete.
    if (next && token.type !== "space" && lastLine > ends + leading(tokens, index)) {
      closed = blocks.length;
      openAt = ends;
    }
    at = ends;
  }
  return { text, blocks, openAt, closed, links, unread: false };
}

/** Tokens of Markdown; `null` if it is nested more deeply than the stack of calls, as marked recurses. */
function lexed(text: string, links: Links): TokensList | null {
  const lexer = new Lexer({ gfm: true });
  Object.assign(lexer.tokens.links, links);
  try {
    return lexer.lex(text);
  } catch {
    return null;
  }
}

/** Length of the empty lines between a token and the next one. */
function leading(tokens: readonly Token[], index: number): number {
  const next = tokens[index + 1];
  return next?.type === "space" ? next.raw.length : 0;
}

function blockOf(token: Token, at: number, text: string): Block {
  const raw = token.raw;
  if (token.type !== "code" || token["codeBlockStyle"] === "indented")
    return { at, raw, code: null };
  const fence = FENCE.exec(raw)?.[1];
  if (fence === undefined) return { at, raw, code: null };
  const language = firstWord(token["lang"] as string | undefined);
  const isLast = at + raw.length >= text.trimEnd().length;
  const open = isLast && !isFenceClosed(raw, fence);
  return { at, raw, code: { language, text: token["text"] as string, open } };
}

function firstWord(info: string | undefined): string {
  return (
    info
      ?.trim()
      .split(/[\s{,:]/)[0]
      ?.toLowerCase() ?? ""
  );
}

function isFenceClosed(raw: string, fence: string): boolean {
  const last = raw.trimEnd().split("\n").at(-1)?.trim() ?? "";
  return last.length >= fence.length && last === fence.charAt(0).repeat(last.length);
}

/** The fenced code that begins at `at`, if the text ends within it. */
function openFence(text: string, at: number): Block | null {
  const from = at + (/^\n*/.exec(text.slice(at, at + 8))?.[0].length ?? 0);
  const head = FENCE.exec(text.slice(from, from + 200));
  const fence = head?.[1];
  if (!head || fence === undefined) return null;
  const begins = from + head[0].length;
  // A closing fence: a line of at least as many of the same marks, and nothing else.
  const mark = fence.charAt(0);
  let line = text.indexOf(`\n${mark.repeat(fence.length)}`, begins - 1);
  while (line !== -1) {
    const end = text.indexOf("\n", line + 1);
    const whole = text.slice(line + 1, end === -1 ? undefined : end).trim();
    if (whole === mark.repeat(whole.length)) return null;
    line = text.indexOf(`\n${mark.repeat(fence.length)}`, line + 1);
  }
  return {
    at: from,
    raw: text.slice(from),
    code: { language: firstWord(head[2]), text: text.slice(begins), open: true },
  };
}
