/** An entry of models.json: read, changed, and its JSON Schema. */

import { GatewayError } from "../../gateway/errors";
import { ask, askJson } from "../../gateway/request";
import { changeOf, type JsonObject, type Path } from "../../schema-form/json";
import { resolved, type Schema } from "../../schema-form/schema";
import { entryPath, refreshFacts } from "./facts";

export interface Stored {
  readonly entry: JsonObject;
  readonly etag: string;
}

export async function readEntry(name: string): Promise<Stored> {
  return storedIn(await ask(entryPath(name)));
}

async function storedIn(response: Response): Promise<Stored> {
  return {
    entry: (await response.json()) as JsonObject,
    etag: response.headers.get("ETag") ?? "",
  };
}

/** Write what changed since `before` was read. Throws a GatewayError of 412 if it is not the last. */
export async function changeEntry(
  name: string,
  before: Stored,
  after: JsonObject,
): Promise<Stored> {
  const { method, body } = changeOf(before.entry, after);
  const headers = { "If-Match": before.etag };
  const stored = await storedIn(await ask(entryPath(name), { method, body, headers }));
  await refreshFacts();
  return stored;
}

/** A new entry. Throws a GatewayError of 412 if there is one of that name. */
export async function makeEntry(name: string, entry: JsonObject): Promise<void> {
  const headers = { "If-None-Match": "*" };
  await ask(entryPath(name), { method: "PUT", body: entry, headers });
  await refreshFacts();
}

let schema: Promise<Schema> | null = null;

/** The JSON Schema of models.json, asked for once. */
export function modelsSchema(): Promise<Schema> {
  schema ??= askJson<Schema>("/schemas/models.json").catch((error: unknown) => {
    schema = null;
    throw error;
  });
  return schema;
}

/** The part of it for an entry, or for a personality that is an object. */
export function definition(root: Schema, name: "Entry" | "Personality"): Schema {
  return resolved({ $ref: `#/$defs/${name}` }, root);
}

export interface Problem {
  readonly path: Path;
  readonly message: string;
}

/** What the gateway says is wrong (422 `invalid_entry`), with the place of each in the entry. */
export function problemsOf(error: unknown, name: string): readonly Problem[] {
  if (!(error instanceof GatewayError)) return [];
  const found = error.details["problems"];
  if (!Array.isArray(found)) return [];
  return found.flatMap((one: unknown) => {
    if (typeof one !== "object" || one === null) return [];
    const { key, message, allowed } = one as Record<string, unknown>;
    if (typeof key !== "string" || typeof message !== "string") return [];
    const inner = key.startsWith(`${name}.`) ? key.slice(name.length + 1) : "";
    const more = typeof allowed === "string" && allowed ? ` (${allowed})` : "";
    return [{ path: inner === "" ? [] : inner.split("."), message: message + more }];
  });
}

/** The problems of the field at `path`, and of what is in it. */
export function problemsAt(problems: readonly Problem[], path: Path): readonly string[] {
  return problems
    .filter((one) => path.every((key, index) => one.path[index]?.split("[")[0] === key))
    .map((one) => one.message);
}
