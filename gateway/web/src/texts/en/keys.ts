/** Words of the screen "Keys". */

import { count } from "../../format";
import { counted } from "./plural";

export const keys = {
  title: "Keys",
  about: "Who may use this box, and how much. Give each app a key of its own, to be revoked alone.",
  create: "Create a key",
  emptyTitle: "No keys yet",
  table: "Keys",
  showEnded: (ended: number): string => `Show ${count(ended)} revoked or expired`,
  heads: {
    name: "Name",
    may: "May use",
    limits: "Limits",
    used: "Last used",
    expires: "Expires",
    actions: "Actions",
  },
  admin: "admin",
  metrics: "only metrics",
  states: { ok: "in use", expired: "expired", revoked: "revoked" } as Readonly<
    Record<string, string>
  >,
  never: "never",
  everything: "everything",
  allModels: "all models",
  allPersonalities: "all personalities",
  noPersonalities: "no personalities",
  unlimited: "none",
  change: (name: string): string => `Change ${name}`,
  revoke: (name: string): string => `Revoke ${name}`,
  changeTitle: (name: string): string => `Change the key ${name}`,
  createTitle: "Create a key",
  save: "Save",
  created: (name: string): string => `Your new key: ${name}`,
  shownOnce: "Copy it now: it is shown only this once. The gateway keeps only a hash of it.",
  copyKey: "Copy key",
  done: "Done",
  forPrometheus:
    "Prometheus reads /metrics with it, as credentials in authorization of its scrape_configs.",
  leaveTitle: (name: string): string => `Close without copying the key ${name}?`,
  leaveText: "It is not shown again. Without it, a new key would be needed.",
  leaveAction: "Close without copying",
  stay: "Go back",
  revokeTitle: (name: string): string => `Revoke the key ${name}?`,
  revokeText: (name: string): string =>
    `Apps that use ${name} are refused from now on, and what runs under it ends. This can't be undone: a new key would be needed.`,
  revokeAction: "Revoke",
  revoked: (name: string): string => `${name} is revoked.`,
  saved: (name: string): string => `${name} is changed.`,
  fields: {
    name: "Name",
    nameHint: "Who or what the key is for.",
    description: "Description",
    admin: "Admin: may change models, keys and settings",
    metrics: "Only metrics: for Prometheus, may read /metrics and nothing else",
    expires: "Expires",
    models: "Models",
    personalities: "Personalities",
    all: "All",
    some: "Only these",
    defaultPersonality: "Default personality",
    noDefault: "None",
    limits: "Limits",
    limitsHint: "Empty: no limit.",
  },
  expiry: {
    keep: "As it is",
    never: "Never",
    "7d": "In 7 days",
    "30d": "In 30 days",
    "90d": "In 90 days",
    "365d": "In a year",
    date: "On a day",
  } as Readonly<Record<string, string>>,
  expiryDate: "Last day",
} as const;

/** Each limit of the API: what it bounds, and the name of its field. */
export const limitWords: Readonly<
  Record<
    string,
    { readonly name: string; readonly field: string; readonly value: (number: number) => string }
  >
> = {
  rpm: { name: "Requests", field: "Requests per minute", value: (n) => `${count(n)} per minute` },
  tpm: { name: "Tokens", field: "Tokens per minute", value: (n) => `${count(n)} per minute` },
  tpd: { name: "Tokens", field: "Tokens per day", value: (n) => `${count(n)} per day` },
  concurrency: {
    name: "Requests",
    field: "Requests at a time",
    value: (n) => `${count(n)} at a time`,
  },
  max_tokens: {
    name: "Longest answer",
    field: "Longest answer, in tokens",
    value: (n) => counted(n, "token", "tokens"),
  },
  max_seconds: {
    name: "Longest request",
    field: "Longest request, in seconds",
    value: (n) => counted(n, "second", "seconds"),
  },
};
