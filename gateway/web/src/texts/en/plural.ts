/** Counted things, by the plural rules of English. */

import { count } from "../../format";

const RULES = new Intl.PluralRules("en");

/** Which of two forms `number` things take: `plural(1, "request", "requests")` is "request". */
export function plural(number: number, one: string, other: string): string {
  return RULES.select(number) === "one" ? one : other;
}

/** "1 request", "2,000 requests". */
export function counted(number: number, one: string, other: string): string {
  return `${count(number)} ${plural(number, one, other)}`;
}
