/** Words of the screen "System". */

import { count } from "../../format";
import { counted } from "./plural";

const days = (number: number): string => counted(number, "day", "days");

export const system = {
  title: "System",
  stale: "This is how it was when the gateway last answered.",

  problems: "Problems",
  fine: "Nothing is wrong.",
  counted: (errors: number, warnings: number): string =>
    [
      errors && counted(errors, "error", "errors"),
      warnings && counted(warnings, "warning", "warnings"),
    ]
      .filter(Boolean)
      .join(", "),
  levels: { error: "Error", warning: "Warning" },
  line: (line: number): string => `line ${line}`,
  value: (value: string): string => `it says ${value}`,
  broken: "models.json is broken",
  brokenLine: (line: number): string => `models.json is broken in line ${line}`,

  about: "About this box",
  gateway: "Gateway",
  python: (version: string): string => `with Python ${version}`,
  llamaServer: "llama-server",
  bundled: "the bundled one",
  unknownVersion: "version unknown",
  started: "Started",
  runs: (user: string, pid: number): string => `as ${user}, process ${pid}`,
  machine: "Machine",
  processors: (number: number): string => counted(number, "processor", "processors"),
  addresses: "Addresses",
  redirects: (url: string): string => `${url} leads to https`,
  files: "Files",
  paths: {
    config: "Configuration",
    models_file: "Models",
    llm_storage: "Model files",
    data_dir: "Data",
  },
  defaults: "built-in defaults, no file",

  memory: "Memory",
  lookingAtMachine: "The machine is being looked at…",
  forModels: (size: string): string => `${size} for models`,
  memoryOf: (name: string): string => `Memory of ${name}`,
  disks: "Disks",
  diskNames: { data_dir: "Data", llm_storage: "Model files" } as Readonly<Record<string, string>>,
  diskOf: (name: string): string => `Disk of ${name}`,
  unknownDisk: "can't be looked at",

  nodes: "Other machines",
  address: "Address",
  devices: "Memory",
  nodeRuns: "Runs",
  nodeRunsNothing: "nothing",
  nodeCopies: (model: string, copies: number): string =>
    copies > 1 ? `${model} (${copies} copies)` : model,
  up: "up",
  drained: "drained: takes no more models",
  down: (problem: string | null): string => (problem === null ? "away" : `away: ${problem}`),
  spans: "Spans",
  spansNot: (why: string): string => `no models with other machines: ${why}`,
  troubles: "Trouble",

  certificate: "Certificate",
  plain: "None: this gateway speaks plain HTTP. Keys and chats can be read on their way.",
  plainLocal: "None, and none needed: only this machine reaches the gateway.",
  sources: {
    "home-made": "Home-made: devices have to be told to trust it",
    own: "Your own files",
    acme: "Got and renewed by the gateway (ACME)",
  },
  names: "Names",
  issuer: "Issued by",
  expires: "Expires",
  standing: {
    good: (left: number): string => `${days(left)} left`,
    soon: (left: number): string => `${days(left)} left: time to renew it`,
    over: (): string => "expired: clients refuse it",
    none: (): string => "not known yet",
  },
  renewed: "Last renewed",
  nextTry: "Next try",
  notRenewed: "The last renewal failed:",

  overTime: "Over time",
  range: "How far back",
  ranges: { "1h": "1 hour", "24h": "24 hours", "7d": "7 days" },
  memoryOverTime: "Memory in use",
  gib: "GiB",
  usedOf: (device: string): string => `${device} in use`,
  models: "Models",
  speed: "Tokens per second",
  perSecond: "tokens/s",
  written: "Written",
  read: "Read from prompts",
  load: "Requests at a time",
  requests: "requests",
  running: "Running",
  waiting: "Waiting",
  tokens: (value: number): string => `${value < 10 ? value.toFixed(1) : count(value)} tokens/s`,
  number: (value: number): string => count(value),

  log: "Log of the gateway",
  logLines: "Lines of the log",
} as const;
