/** Personalities of an entry: a text, or an object with more than that. Pure. */

import { isObject, type Json, type JsonObject } from "../../schema-form/json";

export type Personality = string | JsonObject;

export function personalitiesOf(entry: JsonObject): ReadonlyMap<string, Personality> {
  const found = entry["personalities"];
  if (!isObject(found)) return new Map();
  return new Map(
    Object.entries(found).flatMap(([name, one]) =>
      typeof one === "string" || isObject(one) ? [[name, one] as const] : [],
    ),
  );
}

/** It as an object, whichever it is, with the names of the schema: `template_args` may be written. */
export function asObject(personality: Personality): JsonObject {
  if (typeof personality === "string") return { prompt: personality };
  return Object.fromEntries(Object.entries(personality).map(([key, one]) => [inCamels(key), one]));
}

function inCamels(key: string): string {
  return key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** A text again where it is no more than one, unless it was written as an object. */
export function asWritten(object: JsonObject, before: Personality | undefined): Personality {
  const { prompt, ...rest } = object;
  if (Object.keys(rest).length > 0 || isObject(before)) return object;
  return typeof prompt === "string" ? prompt : "";
}

/**
 * `entry` with a personality put in, under another name if it was renamed; its place stays. One that
 * is not there (any more) is added.
 */
export function withPersonality(
  entry: JsonObject,
  old: string | null,
  name: string,
  value: Personality | null,
): JsonObject {
  const all = personalitiesOf(entry);
  const changed: (readonly [string, Json])[] = [...all].flatMap(([key, one]) => {
    if (key !== old) return [[key, one] as const];
    return value === null ? [] : [[name, value] as const];
  });
  if ((old === null || !all.has(old)) && value !== null) changed.push([name, value]);
  const { personalities: _, ...rest } = entry;
  if (changed.length === 0) return rest;
  return { ...rest, personalities: Object.fromEntries(changed) };
}

/** Why a name can't be given: a word of the texts. */
export function wrongName(
  name: string,
  own: string | null,
  all: ReadonlyMap<string, unknown>,
): "needsName" | "taken" | "none" | null {
  const wanted = name.trim();
  if (wanted === "") return "needsName";
  if (wanted.toLowerCase() === "none") return "none";
  return wanted !== own && all.has(wanted) ? "taken" : null;
}

/**
 * The fields of a chat completion that ask with a personality as it stands here, unsaved:
 * its text as the system message, and what it sets over the rest.
 */
export function tryBody(model: string, personality: JsonObject, question: string): JsonObject {
  const { prompt, setParams, templateArgs, tools, reasoning } = personality;
  const hard = typeof reasoning === "string" && reasoning !== "off" ? reasoning : null;
  const budget = reasoning === false || reasoning === "off" ? 0 : reasoning;
  const thinks = reasoning == null ? {} : { enable_thinking: budget !== 0 };
  const args = { ...thinks, ...(isObject(templateArgs) ? templateArgs : {}) };
  return {
    model,
    personality: "none",
    messages: [
      ...(typeof prompt === "string" && prompt !== "" ? [{ role: "system", content: prompt }] : []),
      { role: "user", content: question },
    ],
    ...(Array.isArray(tools) ? { tools } : {}),
    ...(Object.keys(args).length > 0 ? { chat_template_kwargs: args } : {}),
    ...(hard === null ? {} : { reasoning_effort: hard }),
    ...(typeof budget === "number" ? { reasoning_budget_tokens: budget } : {}),
    ...(isObject(setParams) ? setParams : {}),
    stream: true,
  };
}
