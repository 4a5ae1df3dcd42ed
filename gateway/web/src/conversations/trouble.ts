/** Why what is shown may not be kept; texts/en/conversations.ts has the words. */
export type Trouble = "not-kept" | "full" | "blocked" | "outdated" | "failed" | "unread";

export function isQuotaExceeded(error: unknown): boolean {
  return error instanceof Error && error.name === "QuotaExceededError";
}
