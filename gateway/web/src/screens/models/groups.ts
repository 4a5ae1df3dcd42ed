/** In which group of the form a key of an entry stands. Pure. */

import { type JsonObject, type Path, valueAt } from "../../schema-form/json";
import type { Field } from "../../schema-form/schema";

/** `basic` is always in sight; the others are folded until somebody wants them. */
export const GROUPS = [
  "basic",
  "lists",
  "kind",
  "lifetime",
  "sampling",
  "requests",
  "memory",
  "advanced",
  "idle",
] as const;
export type Group = (typeof GROUPS)[number];

/** In the order in which they are shown. What isn't named here is "advanced", or has no effect. */
const MEMBERS: Readonly<Record<Exclude<Group, "advanced" | "idle">, readonly string[]>> = {
  basic: [
    "meta.displayName",
    "description",
    "params.model",
    "url",
    "key",
    "modelName",
    "params.ctxSize",
    "params.gpuLayers",
    "parallel",
  ],
  lists: ["aliases", "meta.capabilities", "meta.unlisted"],
  kind: ["template", "mmproj", "draftModel", "embeddings", "reranking"],
  lifetime: ["preload", "pinned", "ttl"],
  sampling: [
    "params.temperature",
    "params.topK",
    "params.topP",
    "params.repeatPenalty",
    "params.nPredict",
    "params.seed",
    "params.reversePrompt",
    "params.ignoreEOS",
    "params.keepPrompt",
    "params.logitBias",
    "params.grammar",
    "params.grammarFile",
  ],
  requests: ["setParams", "stripParams"],
  memory: [
    "memory",
    "requireGpu",
    "nodes",
    "replicas",
    "machines",
    "params.threads",
    "params.threadsBatch",
    "params.batchSize",
    "params.mlock",
    "params.noMmap",
    "params.numa",
  ],
};
const PLACES: ReadonlyMap<string, Group> = new Map(
  Object.entries(MEMBERS).flatMap(([group, paths]) =>
    paths.map((path) => [path, group as Group] as const),
  ),
);

/** They have an editor of their own. */
const ELSEWHERE: ReadonlySet<string> = new Set(["personalities"]);

/** What an admin key may not set without `admin.process_settings`: docs/admin-models.md. */
export const PROCESS_SETTINGS: ReadonlySet<string> = new Set(["env", "extraArgs", "caFile"]);

export function joined(path: Path): string {
  return path.join(".");
}

export function groupOf(field: Field): Group | null {
  const path = joined(field.path);
  if (ELSEWHERE.has(path)) return null;
  return PLACES.get(path) ?? (field.help.startsWith("Has no effect") ? "idle" : "advanced");
}

/** The fields of each group, in its order. */
export function grouped(fields: readonly Field[]): ReadonlyMap<Group, readonly Field[]> {
  const found = new Map<Group, Field[]>(GROUPS.map((name) => [name, []]));
  for (const field of fields) {
    const group = groupOf(field);
    if (group) found.get(group)?.push(field);
  }
  for (const [name, members] of Object.entries(MEMBERS)) {
    const place = (field: Field): number => members.indexOf(joined(field.path));
    found.get(name as Group)?.sort((a, b) => place(a) - place(b));
  }
  return found;
}

/**
 * Whether a field is asked for: what is set is, and else what makes sense in this entry.
 *
 * `closed`: the paths that may hold nothing, by the schema.
 */
export function isShown(field: Field, entry: JsonObject, closed: ReadonlySet<string>): boolean {
  if (isSet(field, entry)) return true;
  const path = joined(field.path);
  // Where the model is a file of this machine, nobody looks for servers, unless it is taken out.
  if (path === "url" && valueAt(entry, ["params", "model"]) !== undefined) return false;
  return !closed.has(path) && groupOf(field) !== "idle";
}

export function isSet(field: Field, entry: JsonObject): boolean {
  return valueAt(entry, field.path) !== undefined;
}
