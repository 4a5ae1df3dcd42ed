/** Words that several screens share. */

import { sizeOf } from "../../format";

export const product = "LLM-API Gateway";

export const screens = {
  chat: "Chat",
  models: "Models",
  activity: "Activity",
  keys: "Keys",
  usage: "Usage",
  system: "System",
} as const;

export const states = {
  ready: "loaded",
  loading: "loading",
  waiting: "waiting",
  draining: "draining",
  unloaded: "not loaded",
  failed: "failed",
  remote: "elsewhere",
} as const;

/** Of a device's memory, or of a disk. */
export const used = (part: number, whole: number): string => `${sizeOf(part, whole)} used`;

export const actions = {
  cancel: "Cancel",
  close: "Close",
  copy: "Copy",
  copied: "Copied",
  copyFailed: "Could not copy. Select it and copy it by hand.",
  loading: "Loading…",
  tryAgain: "Try again",
  undo: "Undo",
} as const;

export const errors = {
  request: "Request",
  copyId: "Copy the request id",
  lastLines: "Last lines of the model's log",
  unreachable: "The gateway can't be reached. Is it running, and this device in its network?",
  unknown: "Something went wrong, and nothing says what.",
} as const;
