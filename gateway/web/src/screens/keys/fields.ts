/** What the form of a key holds, and what it sends. Pure. */

/** A key as GET /admin/keys has it. Times in UTC. */
export interface Key {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly admin: boolean;
  /** May read /metrics and nothing else, unless it is an admin key. */
  readonly metrics: boolean;
  readonly state: "ok" | "expired" | "revoked";
  readonly created: string;
  readonly expires: string | null;
  readonly revoked: string | null;
  readonly lastActivity: string | null;
  /** `null`: all. */
  readonly models: readonly string[] | null;
  readonly personalities: readonly string[] | null;
  readonly defaultPersonality: string | null;
  readonly limits: Readonly<Record<string, number | null>> | null;
}

/** The answer of POST /admin/keys. */
export interface CreatedKey extends Key {
  readonly key: string;
}

export const LIMITS = ["rpm", "tpm", "tpd", "concurrency", "max_tokens", "max_seconds"] as const;

/** The form. Texts are as they were typed. */
export interface Fields {
  readonly name: string;
  readonly description: string;
  readonly admin: boolean;
  readonly metrics: boolean;
  /** One of the words of `expiry`. */
  readonly expiry: string;
  /** YYYY-MM-DD, for the expiry "date". */
  readonly date: string;
  /** `null`: all. */
  readonly models: readonly string[] | null;
  readonly personalities: readonly string[] | null;
  readonly defaultPersonality: string;
  readonly limits: Readonly<Record<string, string>>;
}

export function fieldsOf(key: Key | null): Fields {
  return {
    name: key?.name ?? "",
    description: key?.description ?? "",
    admin: key?.admin ?? false,
    metrics: key?.metrics ?? false,
    expiry: key === null ? "never" : "keep",
    date: "",
    models: key?.models ?? null,
    personalities: key?.personalities ?? null,
    defaultPersonality: key?.defaultPersonality ?? "",
    limits: Object.fromEntries(
      LIMITS.map((name) => [name, key?.limits?.[name] == null ? "" : String(key.limits[name])]),
    ),
  };
}

type Body = Record<string, unknown>;

/** The body that makes a key of `fields`. What is left out is as the gateway has it by itself. */
export function created(fields: Fields): Body {
  return changed(null, fields);
}

/** What of `fields` differs from `key`, as a JSON Merge Patch (RFC 7396). */
export function changed(key: Key | null, fields: Fields): Body {
  const before = fieldsOf(key);
  const body: Body = {};
  const name = fields.name.trim();
  if (key === null || name !== before.name) body["name"] = name;
  if (fields.description !== before.description) body["description"] = fields.description;
  if (fields.admin !== before.admin) body["admin"] = fields.admin;
  if (fields.metrics !== before.metrics) body["metrics"] = fields.metrics;
  const expires = expiresOf(fields);
  if (expires !== undefined && !(key === null && expires === null)) body["expires"] = expires;
  for (const field of ["models", "personalities"] as const) {
    if (!same(fields[field], before[field])) body[field] = fields[field];
  }
  if (fields.defaultPersonality !== before.defaultPersonality)
    body["defaultPersonality"] = fields.defaultPersonality || null;
  const limits = Object.fromEntries(
    LIMITS.filter((one) => (fields.limits[one] ?? "") !== before.limits[one]).map((one) => [
      one,
      fields.limits[one] ? Number(fields.limits[one]) : null,
    ]),
  );
  if (Object.keys(limits).length > 0) body["limits"] = limits;
  return body;
}

/** What to send as `expires`; `undefined`: nothing. A day counts to its end, where the person is. */
function expiresOf({ expiry, date }: Fields): string | null | undefined {
  if (expiry === "keep") return undefined;
  if (expiry === "never") return null;
  if (expiry !== "date") return expiry;
  return date ? new Date(`${date}T23:59:59`).toISOString() : undefined;
}

function same(a: readonly string[] | null, b: readonly string[] | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((one) => b.includes(one));
}
