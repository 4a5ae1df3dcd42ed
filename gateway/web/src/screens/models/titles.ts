import { isObject, type Json } from "../../schema-form/json";
import type { Field } from "../../schema-form/schema";
import type { Label } from "../../schema-form/SchemaField";
import { modelEntry as t } from "../../texts/en/modelEntry";

const LONG: ReadonlySet<string> = new Set(["grammar", "prompt"]);
/** Called by the entry's own name, as long as nothing else is said. */
const NAMED: ReadonlySet<string> = new Set(["displayName", "modelName"]);

/** What a key is called to people: by the schema, else by this page, else as it is written. */
export function labelOf(field: Field): Label {
  return {
    title: field.title ?? t.titles[field.key] ?? spaced(field.key),
    unit: t.units[field.key],
    long: LONG.has(field.key),
  };
}

/**
 * What counts while nothing is written: what was chosen for this machine, else in words.
 *
 * `chosen`: the params that the gateway chose at the last load.
 */
export function unsetOf(field: Field, name: string, chosen: unknown): string | undefined {
  if (NAMED.has(field.key)) return name;
  const params = (chosen ?? {}) as Json;
  const now = field.path[0] === "params" && isObject(params) ? params[field.key] : undefined;
  if (typeof now === "number") return t.chosenNow(now);
  return t.unset[field.key];
}

/** "inPrefix" as "In prefix". */
export function spaced(key: string): string {
  const words = key.replace(
    /([a-z])([A-Z])/g,
    (_, a: string, b: string) => `${a} ${b.toLowerCase()}`,
  );
  return words.charAt(0).toUpperCase() + words.slice(1);
}
