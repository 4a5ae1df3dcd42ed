/** What an answer waits for, in which the gateway's status and the answer's own stream agree. Pure. */

import type { WaitingModel } from "../../gateway/types";
import type { Answer } from "./answer";

export type Stage =
  | { readonly kind: "sent" }
  | { readonly kind: "waiting"; readonly position: number; readonly of: number }
  | { readonly kind: "loading"; readonly percent: number | null }
  | { readonly kind: "reading"; readonly percent: number }
  | { readonly kind: "thinking" }
  | { readonly kind: "writing" };

/**
 * Where a request is.
 *
 * `waiting`: what GET /status says of its model; `seconds`: how long ago it was asked when that was
 * told. Which of several in a queue it is the gateway doesn't tell: the one that has waited for
 * about as long.
 */
export function stageOf(answer: Answer, waiting: WaitingModel | undefined, seconds: number): Stage {
  if (answer.content !== "" || answer.toolCalls.length > 0) return { kind: "writing" };
  if (answer.reasoning !== "") return { kind: "thinking" };
  if (answer.reading !== null)
    return { kind: "reading", percent: (100 * answer.reading.read) / answer.reading.total };
  if (waiting === undefined) return { kind: "sent" };
  if (waiting.stage === "starting") return { kind: "loading", percent: waiting.percent };
  const nearest = [...waiting.queue].sort(
    (a, b) => Math.abs(a.seconds - seconds) - Math.abs(b.seconds - seconds),
  )[0];
  if (nearest === undefined) return { kind: "sent" };
  return { kind: "waiting", position: nearest.position, of: waiting.queued };
}
