/** How a certificate stands. */

import type { Certificate } from "./types";

export type Standing = "good" | "soon" | "over" | "none";

/** Days before its end in which a certificate should have been renewed. */
const SOON = 14;

export function standing({ days_left: left, not_before, not_after }: Certificate): Standing {
  if (left === null || not_before === null || not_after === null) return "none";
  if (left < 0) return "over";
  // One of six days is renewed on its last.
  const days = (Date.parse(not_after) - Date.parse(not_before)) / 86_400_000;
  return left < Math.min(SOON, 0.15 * days) ? "soon" : "good";
}
