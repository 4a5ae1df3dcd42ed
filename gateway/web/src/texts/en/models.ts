/** Words of the screen "Models". */

import { count, duration, size } from "../../format";
import { counted } from "./plural";

function spared(hits: number, tokens: number, seconds: number): string {
  const often = hits === 1 ? "once" : counted(hits, "time", "times");
  return `${often}: ${counted(tokens, "token", "tokens")}, about ${duration(seconds)} spared`;
}

export const models = {
  title: "Models",
  add: "Add a model",
  filter: "Filter by name",
  show: "Show",
  filters: {
    all: "All",
    memory: "In memory",
    failed: "Failed",
    out: "Not loaded",
    elsewhere: "Elsewhere",
  },
  nothingMatches: "No model matches.",
  counted: (shown: number, all: number): string =>
    shown === all
      ? counted(all, "model", "models")
      : `${count(shown)} of ${counted(all, "model", "models")}`,
  empty: {
    title: "No model yet",
    text: "Models are GGUF files. Take those that lie on this machine, or fetch one from the hub: a small one of 2 GiB answers on any computer.",
  },
  fileBroken: "models.json is broken; what it said before stays in use. Mend this in the file:",
  readOnly: "These entries can't be changed from here:",

  memory: {
    title: "Memory",
    others: "other programs",
    freePart: "free",
    unknown: "What this machine's memory holds isn't known yet.",
    label: (device: string): string => `Memory of ${device}`,
  },

  card: {
    memory: "Memory",
    estimated: "about",
    stage: "Now",
    nodes: "Runs on",
    thisMachine: "this machine",
    slots: "Requests now",
    ofSlots: (busy: number, slots: number): string => `${count(busy)} of at most ${count(slots)}`,
    queue: "Waiting",
    speed: "Speed",
    speedOf: (tokens: number): string =>
      `${tokens < 10 ? tokens.toFixed(1) : count(tokens)} tokens/s`,
    context: (tokens: number): string => `${count(tokens)} tokens of context`,
    personalities: (n: number): string => counted(n, "personality", "personalities"),
    unload: "Unloads",
    in: (seconds: number): string => `in ${duration(seconds)}`,
    served: "So far",
    requests: (n: number): string => counted(n, "request", "requests"),
    loadedIn: (seconds: number): string => `loaded in ${duration(seconds)}`,
    pinned: "pinned",
    pinnedHint: "Never unloaded for another model",
    active: "default",
    activeHint: "Requests that name no model go to this one",
    preload: "at start",
    preloadHint: "Loaded when the gateway starts",
    unlisted: "unlisted",
    unlistedHint: "In no list: used only by those who know its name",
    itsLog: "See its log",
    notAsWanted: "On the CPU, though it should not be:",
    retry: (seconds: number): string => `Tries again in ${duration(seconds)}.`,
    servers: (up: number, all: number): string =>
      all === 1
        ? up
          ? "its server answers"
          : "its server is not reached yet"
        : `${up} of ${all} servers answer`,
    files: (bytes: number): string => size(bytes),
  },
  actions: {
    load: "Load",
    unload: "Unload",
    stopLoading: "Stop loading",
    connect: "Connect",
    disconnect: "Disconnect",
    retry: "Load again",
    pin: "Pin",
    unpin: "Unpin",
    settings: "Settings",
    log: "Log",
    back: "All models",
    remove: "Remove",
  },
  pinnedNow: (name: string): string => `${name} stays in memory now, whatever else is asked for.`,
  unpinnedNow: (name: string): string => `${name} may be unloaded for others again.`,
  unloading: (name: string): string => `${name} is unloaded when its requests are done.`,

  tabs: { overview: "Overview", settings: "Settings", personalities: "Personalities", log: "Log" },
  gone: (name: string): string => `There is no model ${name}.`,
  facts: {
    title: "What it is",
    file: "File",
    size: "Size",
    quantisation: "Quantisation",
    trained: "Trained for",
    description: "Description",
    personalities: "Personalities",
    servers: "Servers",
    devices: "Runs on",
    started: "Started",
    times: (n: number): string => (n === 1 ? "once" : counted(n, "time", "times")),
    died: "Ended unexpectedly",
    since: "In this state for",
    tokens: "Tokens",
    tokensOf: (read: number, cached: number, written: number): string =>
      `${count(read)} read (${count(cached)} from cache), ${count(written)} written`,
    saved: "Saved conversations",
    savedOf: (n: number, bytes: number): string =>
      n === 0 ? "none" : `${count(n)} (${size(bytes)})`,
    savedOn: (nodes: readonly (readonly [string, number])[]): string =>
      `of these ${nodes.map(([name, n]) => `${count(n)} on ${name}`).join(", ")}`,
    readBack: (hits: number, tokens: number, seconds: number): string =>
      `from disk ${spared(hits, tokens, seconds)}`,
    live: (hits: number, tokens: number, seconds: number): string =>
      `from a slot ${spared(hits, tokens, seconds)}`,
    transferred: (written: number, read: number): string =>
      `${size(written)} written, ${size(read)} read`,
    notSaved: (why: string): string => `Not saved any more: ${why}`,
    chosen: "Chosen for this machine",
    unknown: "not known",
  },
  log: {
    empty: "Nothing yet: its llama-server has not been started.",
    title: (name: string): string => `Log of ${name}`,
    last: "Last lines of its log",
  },
  remove: {
    title: (name: string): string => `Remove ${name}?`,
    text: (name: string): string =>
      `${name} goes from models.json, once the answers under way are finished. The model's file stays on the disk.`,
    action: (name: string): string => `Remove ${name}`,
    done: (name: string): string => `${name} is removed.`,
  },
} as const;
