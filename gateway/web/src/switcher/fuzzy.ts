/** How well a text answers what was typed, letter by letter. Pure. */

import { fold } from "../conversations/search";

/**
 * Greater is better; `null` if the letters of `query` aren't in `text` in this order.
 *
 * Letters that follow each other count, and those that begin a word: "nc" is "New chat".
 */
export function score(query: string, text: string): number | null {
  const wanted = fold(query).replace(/\s+/g, "");
  const folded = fold(text);
  const whole = folded.indexOf(fold(query).trim());
  if (whole >= 0) return 1000 - whole - folded.length / 100;
  let total = 0;
  let from = 0;
  for (const letter of wanted) {
    const beginning = beginningOf(folded, letter, from);
    const next = folded.indexOf(letter, from);
    if (next < 0) return null;
    const follows = next === from && from > 0;
    const place = follows || beginning < 0 ? next : beginning;
    total += follows ? 8 : place === beginning ? 6 : 1 - Math.min(5, place - from);
    from = place + 1;
  }
  return total - folded.length / 100;
}

/** Where `letter` begins a word, from `from` on; -1 if nowhere. */
function beginningOf(text: string, letter: string, from: number): number {
  for (let at = text.indexOf(letter, from); at >= 0; at = text.indexOf(letter, at + 1))
    if (at === 0 || /[^\p{L}\p{N}]/u.test(text[at - 1] ?? "")) return at;
  return -1;
}
