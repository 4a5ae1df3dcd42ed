import type { Field } from "../../schema-form/schema";
import type { Label } from "../../schema-form/SchemaField";
import { modelEntry as t } from "../../texts/en/modelEntry";

const LONG: ReadonlySet<string> = new Set(["grammar", "prompt"]);

/** What a key is called to people: by the schema, else by this page, else as it is written. */
export function labelOf(field: Field): Label {
  return {
    title: field.title ?? t.titles[field.key] ?? spaced(field.key),
    unit: t.units[field.key],
    long: LONG.has(field.key),
  };
}

/** "inPrefix" as "In prefix". */
export function spaced(key: string): string {
  const words = key.replace(
    /([a-z])([A-Z])/g,
    (_, a: string, b: string) => `${a} ${b.toLowerCase()}`,
  );
  return words.charAt(0).toUpperCase() + words.slice(1);
}
