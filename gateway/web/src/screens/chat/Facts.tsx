import type { Message } from "../../conversations/types";
import { chat as t } from "../../texts/en/chat";
import { words } from "./answer";

interface Props {
  readonly message: Message;
  /** The very first answer: said in words that everybody knows. */
  readonly first: boolean;
  readonly remote: boolean;
}

/** How an answer came about, small below it. */
export function Facts({ message, first, remote }: Props) {
  const facts = first ? plainFacts(message, remote) : exactFacts(message);
  if (facts.length === 0) return null;
  return <p class="facts soft">{facts.join(first ? ", " : " · ")}</p>;
}

function plainFacts({ stats, content, reasoning }: Message, remote: boolean): readonly string[] {
  const { firstTokenSeconds, tokensPerSecond, completionTokens } = stats ?? {};
  const facts: string[] = [];
  if (firstTokenSeconds !== undefined) facts.push(t.firstWord(firstTokenSeconds));
  if (tokensPerSecond && completionTokens) {
    const all = words(content) + words(reasoning ?? "");
    const rate = t.wordsPerSecond((all / completionTokens) * tokensPerSecond);
    facts.push(remote ? rate : `${rate} ${t.onThisBox}`);
  }
  return facts;
}

function exactFacts({ stats }: Message): readonly string[] {
  const facts: string[] = [];
  if (stats?.tokensPerSecond) facts.push(t.tokensPerSecond(stats.tokensPerSecond));
  if (stats?.completionTokens !== undefined) facts.push(t.tokens(stats.completionTokens));
  if (stats?.promptTokens !== undefined)
    facts.push(t.prompt(stats.promptTokens, stats.cachedTokens ?? 0));
  if (stats?.firstTokenSeconds !== undefined) facts.push(t.firstToken(stats.firstTokenSeconds));
  return facts;
}
