/** An answer put together out of the events of its stream. Pure. */

import type { Stats, ToolCall } from "../../conversations/types";

/** Tokens of the prompt that were read, of all. */
export interface Reading {
  readonly read: number;
  readonly total: number;
}

/** What has come of an answer. */
export interface Answer {
  readonly content: string;
  readonly reasoning: string;
  readonly toolCalls: readonly ToolCall[];
  /** `stop`, `length`, `tool_calls`...; `null` until the model has ended. */
  readonly finish: string | null;
  /** The model that answers, as it calls itself. */
  readonly model: string | null;
  /** Where llama-server is with the prompt; `null` before, and once it writes. */
  readonly reading: Reading | null;
  /** The gateway's last event, if the stream broke behind it. */
  readonly error: string | null;
  /** Its code. */
  readonly code: string | null;
  /** Pieces of text that came: as many as tokens, mostly. */
  readonly pieces: number;
  readonly stats: Stats;
}

export const NOTHING: Answer = {
  content: "",
  reasoning: "",
  toolCalls: [],
  finish: null,
  model: null,
  reading: null,
  error: null,
  code: null,
  pieces: 0,
  stats: {},
};

/** The last event of a whole stream. */
export const DONE = "[DONE]";

type Fields = Readonly<Record<string, unknown>>;

function fields(value: unknown): Fields | null {
  return typeof value === "object" && value !== null ? (value as Fields) : null;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function number(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** The answer with one more event, the `data` of which is JSON. What it doesn't know it ignores. */
export function take(before: Answer, data: string): Answer {
  let event: Fields | null;
  try {
    event = fields(JSON.parse(data));
  } catch {
    return { ...before, error: data.slice(0, 500) }; // none that a gateway sends: say what came
  }
  if (event === null) return before;
  const error = errorIn(event);
  if (error !== null)
    return { ...before, error, code: text(fields(event["error"])?.["code"]) || null };
  const choices = Array.isArray(event["choices"]) ? event["choices"] : [];
  // Of several answers to one question, which parameters of a model can ask for, the first.
  const choice = choices.map(fields).find((one) => (number(one?.["index"]) ?? 0) === 0);
  const delta = fields(choice?.["delta"]);
  const content = text(delta?.["content"]);
  const thought = text(delta?.["reasoning_content"]) || text(delta?.["reasoning"]);
  const calls = Array.isArray(delta?.["tool_calls"]) ? delta["tool_calls"] : [];
  const wrote = content !== "" || thought !== "" || calls.length > 0;
  return {
    content: before.content + content,
    reasoning: before.reasoning + thought,
    toolCalls: calls.length > 0 ? withCalls(before.toolCalls, calls) : before.toolCalls,
    finish: text(choice?.["finish_reason"]) || before.finish,
    model: text(event["model"]) || before.model,
    reading: wrote ? null : (readingIn(event) ?? before.reading),
    error: null,
    code: null,
    pieces: before.pieces + (wrote ? 1 : 0),
    stats: withStats(before.stats, event),
  };
}

function errorIn(event: Fields): string | null {
  const error = event["error"];
  if (error === undefined || error === null) return null;
  return text(fields(error)?.["message"]) || text(error) || JSON.stringify(error);
}

function readingIn(event: Fields): Reading | null {
  const progress = fields(event["prompt_progress"]);
  const total = number(progress?.["total"]);
  const read = number(progress?.["processed"]);
  return total !== undefined && read !== undefined && total > 0 ? { read, total } : null;
}

/** Calls come in pieces: the name first, and their arguments bit by bit, told apart by `index`. */
function withCalls(before: readonly ToolCall[], pieces: readonly unknown[]): readonly ToolCall[] {
  const calls = [...before];
  for (const piece of pieces) {
    const call = fields(piece);
    const index = number(call?.["index"]) ?? calls.length;
    const called = fields(call?.["function"]);
    const known = calls[index] ?? { id: "", name: "", arguments: "" };
    calls[Math.min(index, calls.length)] = {
      id: known.id || text(call?.["id"]),
      name: known.name + text(called?.["name"]),
      arguments: known.arguments + text(called?.["arguments"]),
    };
  }
  return calls;
}

function withStats(before: Stats, event: Fields): Stats {
  const usage = fields(event["usage"]);
  const timings = fields(event["timings"]);
  if (!usage && !timings) return before;
  const details = fields(usage?.["prompt_tokens_details"]);
  const found: Record<string, number | undefined> = {
    promptTokens: number(usage?.["prompt_tokens"]),
    completionTokens: number(usage?.["completion_tokens"]),
    cachedTokens: number(details?.["cached_tokens"]) ?? number(timings?.["cache_n"]),
    tokensPerSecond: number(timings?.["predicted_per_second"]),
  };
  const known = Object.entries(found).filter(([, value]) => value !== undefined);
  return { ...before, ...Object.fromEntries(known) };
}

/** Words in a text, for a rate that people can judge. */
export function words(value: string): number {
  return value.match(/\S+/g)?.length ?? 0;
}
