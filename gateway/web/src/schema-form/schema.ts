/** The part of JSON Schema (2020-12) that models.json is described with, as fields of a form. Pure. */

import { isObject, type Json, type JsonObject, type Path, valueAt } from "./json";

export interface Schema {
  readonly $ref?: string;
  readonly $defs?: Readonly<Record<string, Schema>>;
  readonly type?: string;
  readonly title?: string;
  readonly description?: string;
  readonly default?: Json;
  readonly enum?: readonly Json[];
  readonly const?: Json;
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema | boolean>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly pattern?: string;
  readonly format?: string;
  readonly writeOnly?: boolean;
  readonly if?: Schema;
  readonly then?: Schema;
  readonly else?: Schema;
  readonly required?: readonly string[];
}

/** How a value is asked for. */
export type Kind =
  | { readonly kind: "text"; readonly secret: boolean; readonly pattern: string | undefined }
  | {
      readonly kind: "number";
      readonly whole: boolean;
      readonly minimum: number | undefined;
      readonly maximum: number | undefined;
    }
  /** A number with or without a unit: `600` or `10m`. */
  | { readonly kind: "quantity"; readonly pattern: string }
  /** `optional`: it may be left open, which is neither yes nor no. */
  | { readonly kind: "flag"; readonly optional: boolean }
  | { readonly kind: "choice"; readonly options: readonly string[] }
  /** Words, numbers, yes and no, whichever of them it may be. */
  | {
      readonly kind: "mixed";
      readonly words: readonly string[];
      readonly flag: boolean;
      readonly number: boolean;
    }
  /** Texts, one a line. */
  | { readonly kind: "lines" }
  | { readonly kind: "map"; readonly text: boolean }
  | { readonly kind: "group" }
  | { readonly kind: "json" };

/** A property of an object that a form shows. */
export interface Field {
  readonly path: Path;
  readonly key: string;
  readonly title: string | undefined;
  /** What it is for, and what it may be: in the schema they stand in one text. */
  readonly help: string;
  readonly allowed: string | undefined;
  readonly fallback: Json | undefined;
  readonly kind: Kind;
}

/** `schema` with what its `$ref` leads to. */
export function resolved(schema: Schema, root: Schema): Schema {
  const name = schema.$ref?.replace("#/$defs/", "");
  const found = name === undefined ? undefined : root.$defs?.[name];
  if (!found) return schema;
  const { $ref: _, ...rest } = schema;
  return { ...resolved(found, root), ...rest };
}

const ALLOWED = "\n\nAllowed: ";

/** The fields of an object, those of objects in it (`params`) among them. */
export function fieldsOf(schema: Schema, root: Schema, at: Path = []): Field[] {
  return Object.entries(resolved(schema, root).properties ?? {}).flatMap(([key, found]) => {
    if (typeof found === "boolean") return [];
    const one = resolved(found, root);
    const path = [...at, key];
    const kind = kindOf(one, root);
    if (kind.kind === "group") return fieldsOf(one, root, path);
    const [help = "", allowed] = (one.description ?? "").split(ALLOWED);
    return [{ path, key, title: one.title, help, allowed, fallback: one.default, kind }];
  });
}

/** How to ask for a value that `schema` describes. */
export function kindOf(given: Schema, root: Schema): Kind {
  const schema = resolved(given, root);
  const all = (schema.anyOf ?? [schema]).map((one) => resolved(one, root));
  const options = all.filter((one) => one.type !== "null");
  const words = [...(schema.enum ?? []), ...options.flatMap((one) => one.enum ?? [])].filter(
    (one): one is string => typeof one === "string" && one !== "",
  );
  const constants = options.flatMap((one) => (typeof one.const === "string" ? [one.const] : []));
  const types = new Set(options.map((one) => one.type));
  const only = options.length === 1 ? options[0] : undefined;
  if (only) return simple(only, words, all.length > options.length, root);
  const number = options.find((one) => one.type === "number" || one.type === "integer");
  const text = options.find((one) => one.type === "string");
  if (types.has("object")) return { kind: "json" };
  if (types.has("array")) return types.has("string") ? { kind: "lines" } : { kind: "json" };
  if (number && text?.pattern !== undefined) return { kind: "quantity", pattern: text.pattern };
  const known = [...words, ...constants];
  return { kind: "mixed", words: known, flag: types.has("boolean"), number: number !== undefined };
}

function simple(schema: Schema, words: readonly string[], optional: boolean, root: Schema): Kind {
  switch (schema.type) {
    case "boolean":
      return { kind: "flag", optional };
    case "integer":
    case "number":
      return {
        kind: "number",
        whole: schema.type === "integer",
        minimum: schema.minimum ?? schema.exclusiveMinimum,
        maximum: schema.maximum,
      };
    case "string":
      if (words.length > 0) return { kind: "choice", options: words };
      return {
        kind: "text",
        secret: schema.writeOnly === true || schema.format === "password",
        pattern: schema.pattern,
      };
    case "array":
      return schema.items && resolved(schema.items, root).type === "string"
        ? { kind: "lines" }
        : { kind: "json" };
    case "object": {
      if (schema.properties) return { kind: "group" };
      const values = schema.additionalProperties;
      const inner = typeof values === "object" ? resolved(values, root) : {};
      return { kind: "map", text: inner.type === "string" };
    }
    default:
      return { kind: "json" };
  }
}

/** Keys of `value` that the schema doesn't know, in objects it describes: they stay as they are. */
export function unknownKeys(
  value: JsonObject,
  schema: Schema,
  root: Schema,
  at: Path = [],
): Path[] {
  const known = resolved(schema, root).properties ?? {};
  return Object.entries(value).flatMap(([key, inner]) => {
    const path = [...at, key];
    const found = known[key];
    if (found === undefined) return [path];
    if (typeof found === "boolean" || !isObject(inner)) return [];
    return kindOf(found, root).kind === "group" ? unknownKeys(inner, found, root, path) : [];
  });
}

/** Paths that may hold nothing, by the schema's `if`: what makes no sense beside `url`, say. */
export function closedPaths(value: JsonObject, schema: Schema): Path[] {
  if (!schema.if) return [];
  const met = (schema.if.required ?? []).every((key) => {
    const found = value[key];
    return found !== undefined && found !== null && found !== "";
  });
  return closedIn((met ? schema.then : schema.else) ?? {}, []);
}

function closedIn(schema: Schema, at: Path): Path[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, one]) => {
    const path = [...at, key];
    if (one === false || (typeof one === "object" && one.const === null)) return [path];
    return typeof one === "object" ? closedIn(one, path) : [];
  });
}

/** What is wrong with a value before anybody is asked: a word of {@link WRONG}, with its bounds. */
export type Wrong =
  | { readonly what: "number" | "whole" | "pattern" }
  | { readonly what: "minimum" | "maximum"; readonly bound: number };

export function wrongWith(value: Json | undefined, kind: Kind): Wrong | null {
  if (value === undefined || value === null || value === "***") return null;
  switch (kind.kind) {
    case "number":
      if (typeof value !== "number") return { what: kind.whole ? "whole" : "number" };
      if (kind.whole && !Number.isInteger(value)) return { what: "whole" };
      if (kind.minimum !== undefined && value < kind.minimum)
        return { what: "minimum", bound: kind.minimum };
      if (kind.maximum !== undefined && value > kind.maximum)
        return { what: "maximum", bound: kind.maximum };
      return null;
    case "quantity":
      return typeof value === "string" && !matches(kind.pattern, value)
        ? { what: "pattern" }
        : null;
    case "text":
      return kind.pattern !== undefined &&
        typeof value === "string" &&
        !matches(kind.pattern, value)
        ? { what: "pattern" }
        : null;
    default:
      return null;
  }
}

function matches(pattern: string, text: string): boolean {
  try {
    return new RegExp(pattern, "u").test(text);
  } catch {
    return true; // one that only the gateway's own language has: it will say
  }
}

/** What a person has written into a field, as the value of its kind; `undefined`: nothing. */
export function valueOf(text: string, kind: Kind): Json | undefined {
  if (text.trim() === "" && kind.kind !== "text") return undefined;
  switch (kind.kind) {
    case "number":
    case "quantity": {
      const number = Number(text);
      return text.trim() !== "" && Number.isFinite(number) ? number : text.trim();
    }
    case "mixed": {
      const word = text.trim();
      if (kind.flag && (word === "true" || word === "false")) return word === "true";
      if (kind.number && Number.isFinite(Number(word))) return Number(word);
      return word;
    }
    case "lines":
      return text
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean);
    default:
      return text === "" ? undefined : text;
  }
}

/** A value as it is written into a field. */
export function textOf(value: Json | undefined, kind: Kind): string {
  if (value === undefined || value === null) return "";
  if (kind.kind === "lines" && Array.isArray(value)) return value.map(String).join("\n");
  return typeof value === "object" ? JSON.stringify(value, null, 2) : String(value);
}

/** Every field with something wrong in `value`. */
export function wrongFields(
  value: JsonObject,
  fields: readonly Field[],
): { readonly field: Field; readonly wrong: Wrong }[] {
  return fields.flatMap((field) => {
    const wrong = wrongWith(valueAt(value, field.path), field.kind);
    return wrong ? [{ field, wrong }] : [];
  });
}
