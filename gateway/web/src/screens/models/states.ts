/** In which state a model is to people, and which come first. Pure. */

import type { StateName } from "../../components/State";
import type { LiveModel } from "./facts";

export function stateOf(model: LiveModel, remote: boolean): StateName {
  switch (model.state) {
    case "ready":
      return remote ? "remote" : "ready";
    case "starting":
      return "loading";
    case "draining":
    case "stopping":
      return "draining";
    case "backoff":
    case "failed":
      return "failed";
    default:
      if (model.queued > 0) return "waiting";
      if (model.start_failed) return "failed";
      return remote ? "remote" : "unloaded";
  }
}

export type Filter = "all" | "memory" | "failed" | "out" | "elsewhere";

export function matches(
  model: LiveModel,
  remote: boolean,
  filter: Filter,
  words: string,
  /** What people call it. */
  called = "",
): boolean {
  const text = words.trim().toLowerCase();
  if (text !== "" && !`${model.name} ${called}`.toLowerCase().includes(text)) return false;
  const state = stateOf(model, remote);
  switch (filter) {
    case "all":
      return true;
    case "memory":
      return !remote && (state === "ready" || state === "loading" || state === "draining");
    case "failed":
      return state === "failed";
    case "elsewhere":
      return remote;
    case "out":
      return !remote && (state === "unloaded" || state === "waiting");
  }
}

const ORDER: Readonly<Record<StateName, number>> = {
  loading: 0,
  waiting: 0,
  ready: 1,
  draining: 1,
  failed: 2,
  remote: 3,
  unloaded: 4,
};

/** What is in memory or wants to be first, else in the order of models.json. */
export function inOrder(
  models: readonly LiveModel[],
  isRemote: (name: string) => boolean,
): readonly LiveModel[] {
  const rank = (one: LiveModel): number => ORDER[stateOf(one, isRemote(one.name))];
  return [...models].sort((a, b) => rank(a) - rank(b));
}
