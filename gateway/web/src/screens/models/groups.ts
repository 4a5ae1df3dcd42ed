/** In which group of the form a key of an entry stands. Pure. */

import type { Path } from "../../schema-form/json";
import type { Field } from "../../schema-form/schema";

export const GROUPS = ["what", "memory", "sampling", "lifetime", "advanced", "idle"] as const;
export type Group = (typeof GROUPS)[number];

/** In the order in which they are shown. What isn't named here is "advanced", or has no effect. */
const MEMBERS: Readonly<Record<"what" | "memory" | "sampling" | "lifetime", readonly string[]>> = {
  what: [
    "params.model",
    "url",
    "key",
    "modelName",
    "description",
    "aliases",
    "meta.displayName",
    "mmproj",
    "draftModel",
    "template",
    "embeddings",
    "reranking",
    "meta.unlisted",
  ],
  memory: [
    "params.ctxSize",
    "parallel",
    "params.gpuLayers",
    "memory",
    "params.threads",
    "params.threadsBatch",
    "params.batchSize",
    "requireGpu",
    "params.mlock",
    "params.noMmap",
    "params.numa",
  ],
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
    "setParams",
    "stripParams",
  ],
  lifetime: ["preload", "pinned", "ttl"],
};

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
  for (const name of ["what", "memory", "sampling", "lifetime"] as const)
    if (MEMBERS[name].includes(path)) return name;
  return field.help.startsWith("Has no effect") ? "idle" : "advanced";
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
    found.get(name as keyof typeof MEMBERS)?.sort((a, b) => place(a) - place(b));
  }
  return found;
}
