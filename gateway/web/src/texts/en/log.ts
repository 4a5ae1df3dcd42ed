/** Words of a log that is followed. */

import { count } from "../../format";
import { counted } from "./plural";

export const log = {
  search: "Search",
  level: "Level",
  levels: {
    debug: "All levels",
    info: "Info and above",
    warning: "Warnings and errors",
    error: "Errors",
  },
  pause: "Pause",
  goOn: "Go on",
  toEnd: "To the newest line",
  wrap: "Wrap lines",
  copyAll: "Copy these lines",
  connecting: "Connecting…",
  empty: "Nothing has been written yet. What comes appears here by itself.",
  noMatch: "No line matches.",
  broken: "The connection broke; trying again…",
  lines: (shown: number, all: number): string =>
    shown === all
      ? counted(all, "line", "lines")
      : `${count(shown)} of ${counted(all, "line", "lines")}`,
  waiting: (lines: number): string => `${count(lines)} new since the pause`,
} as const;
