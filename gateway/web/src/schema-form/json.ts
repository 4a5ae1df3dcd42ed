/** JSON values, and JSON Merge Patch (RFC 7396) between two of them. Pure. */

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function equal(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b))
    return a.length === b.length && a.every((one: Json, index) => equal(one, b[index] as Json));
  if (!isObject(a) || !isObject(b)) return false;
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && equal(a[key], b[key]))
  );
}

/** Where a value stands in an object: its keys from the outside in. */
export type Path = readonly string[];

export function valueAt(value: Json | undefined, path: Path): Json | undefined {
  let found = value;
  for (const key of path) {
    if (!isObject(found) || !Object.hasOwn(found, key)) return undefined;
    found = found[key];
  }
  return found;
}

/** `value` with `next` at `path`; `undefined` takes it away, and objects that it leaves empty. */
export function withValueAt(value: JsonObject, path: Path, next: Json | undefined): JsonObject {
  const [key, ...rest] = path;
  if (key === undefined) return isObject(next) ? next : value;
  let inner = next;
  if (rest.length > 0) {
    const before = value[key];
    inner = withValueAt(isObject(before) ? before : {}, rest, next);
    if (next === undefined && isObject(inner) && Object.keys(inner).length === 0) inner = undefined;
  }
  if (inner !== undefined) return { ...value, [key]: inner };
  return Object.fromEntries(Object.entries(value).filter(([name]) => name !== key));
}

/** The merge patch that makes `after` of `before`. */
export function difference(before: JsonObject, after: JsonObject): JsonObject {
  const patch: Record<string, Json> = {};
  for (const key of Object.keys(before)) if (!Object.hasOwn(after, key)) patch[key] = null;
  for (const [key, value] of Object.entries(after)) {
    const old = before[key];
    if (Object.hasOwn(before, key) && equal(old, value)) continue;
    patch[key] = isObject(old) && isObject(value) ? difference(old, value) : value;
  }
  return patch;
}

/** What a merge patch makes of `before`. */
export function patched(before: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const result: Record<string, Json> = isObject(before) ? { ...before } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = patched(result[key], value);
  }
  return result;
}

/**
 * How to write a change: a merge patch, which leaves what others change beside it, or the whole
 * where a patch can't say it (`null` as a value means "take it away" there).
 */
export function changeOf(
  before: JsonObject,
  after: JsonObject,
): { readonly method: "PATCH" | "PUT"; readonly body: JsonObject } {
  const patch = difference(before, after);
  if (equal(patched(before, patch), after)) return { method: "PATCH", body: patch };
  return { method: "PUT", body: after };
}

/** A difference of two objects at one place. */
export interface Difference {
  readonly path: Path;
  readonly before: Json | undefined;
  readonly after: Json | undefined;
}

/** All of them, down to what isn't an object in both. */
export function differences(before: JsonObject, after: JsonObject, at: Path = []): Difference[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].flatMap((key) => {
    const [old, now] = [before[key], after[key]];
    if (equal(old, now)) return [];
    if (isObject(old) && isObject(now)) return differences(old, now, [...at, key]);
    return [{ path: [...at, key], before: old, after: now }];
  });
}
