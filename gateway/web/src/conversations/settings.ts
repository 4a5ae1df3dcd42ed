/** The settings of a conversation: what they send, and which values may be. Pure. */

import { settings as t } from "../texts/en/conversations";
import type { JsonSchema, Settings } from "./types";

/**
 * Fields of a `POST /v1/chat/completions` body that settings stand for, without the system text,
 * which is a message.
 */
export function requestFields(settings: Settings): Record<string, unknown> {
  const { temperature, top_p, max_tokens, json, reasoning } = settings;
  const fields: Record<string, unknown> = {};
  if (temperature !== undefined) fields["temperature"] = temperature;
  if (top_p !== undefined) fields["top_p"] = top_p;
  if (max_tokens !== undefined) fields["max_tokens"] = max_tokens;
  if (json === true) fields["response_format"] = { type: "json_object" };
  else if (json !== undefined)
    fields["response_format"] = {
      type: "json_schema",
      json_schema: { name: "answer", strict: true, schema: json },
    };
  if (reasoning !== undefined) {
    fields["chat_template_kwargs"] = { enable_thinking: reasoning };
    if (!reasoning) fields["reasoning_budget_tokens"] = 0;
  }
  return fields;
}

export interface Limits {
  readonly least: number;
  readonly most: number;
  readonly whole: boolean;
}

/** What numbers may be; of `max_tokens` the greatest is the model's context, if it is known. */
export const LIMITS: Readonly<Record<"temperature" | "top_p" | "max_tokens", Limits>> = {
  temperature: { least: 0, most: 2, whole: false },
  top_p: { least: 0, most: 1, whole: false },
  max_tokens: { least: 1, most: 1_000_000, whole: true },
};

/** What a field holds as a number, or why it is none; nothing for an empty one. */
export type Read<T> =
  { readonly value: T | undefined; readonly problem?: undefined } | { readonly problem: string };

export function readNumber(text: string, limits: Limits): Read<number> {
  const trimmed = text.trim();
  if (trimmed === "") return { value: undefined };
  // A comma is what half of the world writes before the decimals.
  const plain = trimmed.replace(/^(-?\d*),(\d+)$/, "$1.$2");
  const value = /^-?(\d+\.?\d*|\.\d+)$/.test(plain) ? Number(plain) : NaN;
  const wrong =
    Number.isNaN(value) ||
    value < limits.least ||
    value > limits.most ||
    (limits.whole && !Number.isInteger(value));
  return wrong ? { problem: t.between(limits) } : { value };
}

/** A JSON Schema as it was typed. It must be an object; whether the model likes it, it says. */
export function readSchema(text: string): Read<JsonSchema> {
  if (text.trim() === "") return { value: undefined };
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch (error) {
    return { problem: t.notJson(error instanceof Error ? error.message : "") };
  }
  if (typeof found !== "object" || found === null || Array.isArray(found))
    return { problem: t.noSchema };
  return { value: found as JsonSchema };
}

/** Whether anything differs from the model's own. */
export function isPlain(settings: Settings): boolean {
  return Object.values(settings).every((value) => value === undefined);
}
