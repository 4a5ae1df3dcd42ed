/** Words of the screen "Usage". */

import { counted, plural } from "./plural";

export const usage = {
  title: "Usage",
  ownTitle: "Your usage",
  loading: "Loading…",
  none: "Nothing was used in this time",
  noneHow: "Every request to a model is counted here, by day (UTC), model and key.",
  toChat: "Open Chat",
  download: "Download CSV",

  range: "Time",
  days: (count: number) => counted(count, "day", "days"),
  show: "Show",
  tokens: "Tokens",
  requests: "Requests",
  by: "By",
  bys: { model: "Model", key: "Key", day: "Day" },
  others: "others",
  unknownKey: "unknown key",

  chart: (what: string, days: number, by: string) =>
    `${what} per day of the last ${days} days, by ${by.toLowerCase()}`,
  axis: { tokens: "tokens per day", requests: "requests per day" },
  axisDay: "day (UTC)",
  bar: (day: string, name: string, value: string) => `${day}, ${name}: ${value}`,
  legend: "What the colours mean",

  totals: {
    tokens: (number: number): string => plural(number, "token", "tokens"),
    requests: (number: number): string => plural(number, "request", "requests"),
    prompt: (number: number): string => plural(number, "prompt token", "prompt tokens"),
    cached: (): string => "prompt tokens cached",
    completion: (number: number): string => plural(number, "answer token", "answer tokens"),
  },

  behind: "Usage by day",
  inCsv: (rows: number): string => `${counted(rows, "older row", "older rows")} in the CSV.`,
  table: (by: string) => `Totals by ${by.toLowerCase()}`,
  columns: {
    requests: "Requests",
    prompt: "Prompt tokens",
    cached: "Cached",
    completion: "Answer tokens",
    tokens: "Tokens",
  },

  own: {
    title: "Your key",
    expires: "Expires",
    never: "never",
    models: "Models",
    personalities: "Personalities",
    all: "all",
    left: (left: string, limit: string) => `${left} of ${limit} left`,
    full: (words: string) => `full again in ${words}`,
    limits: {
      rpm: "Requests per minute",
      tpm: "Tokens per minute",
      tpd: "Tokens per day",
      concurrency: "Requests at once",
    } as Readonly<Record<string, string>>,
    longest: "Longest answer",
    longestValue: (tokens: number): string => counted(tokens, "token", "tokens"),
  },
} as const;
