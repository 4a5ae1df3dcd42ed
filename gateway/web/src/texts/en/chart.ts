/** Words of charts. */

export const chart = {
  table: "The same as a table",
  time: "Time",
  nothing: "Nothing has been recorded for this time.",
  unknown: "not known",
  summary: (title: string, parts: readonly string[]): string => `${title}. ${parts.join(" ")}`,
  ofSeries: (label: string, last: string, most: string): string =>
    `${label}: ${last} at last, ${most} at most.`,
} as const;
