/** Words of the screen "Activity". */

import { count, duration } from "../../format";
import { counted } from "./plural";

/** Null: nobody knows where it was. */
type Place = "slot" | "disk" | null;

function from(place: Place): string {
  return place === null ? "cached" : place === "slot" ? "from a slot" : "from disk";
}

export const activity = {
  title: "Activity",
  loading: "Loading…",
  running: "Running now",
  nothingRuns: "Nothing runs now.",
  notShown: (number: number) => `and ${count(number)} more, not shown`,
  ended: "Ended",
  stale: "The connection broke; what is below may be old. Trying again…",
  lost: (number: number) =>
    `${counted(number, "request", "requests")} could not be recorded since the gateway started.`,
  none: "No request has been made yet",
  noneHow: "Ask something in Chat, or from your own program with a key.",
  toChat: "Open Chat",
  noMatch: "No request matches",
  clear: "Clear filters",
  older: "Show older",
  end: ({ seconds, requests }: { readonly seconds: number | null; readonly requests: number }) =>
    seconds === null
      ? `That is all: only the newest ${count(requests)} since the start are kept. accounting.keep_requests in gateway.yaml changes that.`
      : `That is all: requests are kept for ${duration(seconds)}, the newest ${count(requests)} at most (accounting in gateway.yaml).`,
  unknownKey: "unknown key",

  columns: {
    time: "Time",
    key: "Key",
    model: "Model",
    stage: "Stage",
    status: "Result",
    seconds: "Duration",
    timings: "Where the time went",
    tokens: "Tokens",
    bothTokens: "Tokens in → out",
    speed: "Tokens/s",
    client: "Client",
    actions: "Actions",
    details: "Details",
  },

  filters: {
    name: "Filters",
    key: "Key",
    anyKey: "Any key",
    revoked: (name: string) => `${name} (revoked)`,
    model: "Model",
    anyModel: "Any model",
    status: "Result",
    anyStatus: "Any result",
    good: "Answered",
    left: "Client left",
    cancelled: "Refused or cancelled (4xx)",
    failed: "Failed (5xx)",
    slow: "Duration",
    anySlow: "Any duration",
    slower: (words: string) => `${words} or more`,
    cached: "Prompt from",
    anyPlace: "Anywhere",
    slot: "A slot",
    disk: "Disk",
    nowhere: "Computed anew",
  },

  stages: {
    queued: "waiting",
    position: (place: number) => `waiting, position ${place}`,
    loading: "loading the model",
    prefill: "reading the prompt",
    generating: "writing",
    answering: "answering",
  },

  parts: {
    queue: "Queue",
    load: "Load",
    prefill: "Prompt",
    generation: "Answer",
    together: "Prompt and answer",
  },
  legend: {
    name: "What the colours mean",
    queue: "waiting in the queue",
    load: "loading the model",
    prefill: "reading the prompt",
    generation: "writing the answer",
  },

  results: {
    ok: "answered",
    left: "client left",
    cancelled: "cancelled",
    failed: (status: number) => `failed (${status})`,
    refused: (status: number) => `refused (${status})`,
  },

  cached: (number: number, place: Place) => `${count(number)} ${from(place)}`,
  details: {
    show: (what: string) => `Show details of ${what}`,
    hide: (what: string) => `Hide details of ${what}`,
    what: (model: string, key: string) => `the request of ${key} to ${model}`,
    id: "Request",
    copyId: "Copy the request id",
    route: "Route",
    streamed: "streamed",
    whole: "in one piece",
    client: "Client address",
    personality: "Personality",
    started: "Started",
    prompt: "Prompt tokens",
    cached: (number: number, all: number, place: Place) =>
      `${count(number)} of ${count(all)} ${from(place)}`,
    completion: "Answer tokens",
    speed: "Speed",
    perSecond: (speed: string) => `${speed} tokens/s`,
    code: "Error code",
    timings: "Time",
  },

  cancel: "Cancel",
  cancelTitle: "Cancel this request?",
  cancelText: (what: string) =>
    `${what[0]?.toUpperCase()}${what.slice(1)} ends now. Its client is told that an administrator cancelled it; what was written so far is counted.`,
  cancelAction: "Cancel request",
  keepRunning: "Keep it running",
  cancelled: "Request cancelled.",
} as const;
