/** Server-Sent Events of the gateway (WHATWG HTML 9.2), read by fetch: EventSource sends no key. */

import { EventSourceParserStream } from "eventsource-parser/stream";
import { GatewayError, Unreachable } from "./errors";
import { ask, type Ask } from "./request";
import { whileInSight } from "./sight";

export interface SentEvent {
  /** "message" unless the event says otherwise. */
  readonly event: string;
  readonly data: string;
}

/** Events of one answer, until it ends. Comments (heartbeats) are left out. */
export async function* events(path: string, options: Ask = {}): AsyncGenerator<SentEvent> {
  const headers = { Accept: "text/event-stream", ...options.headers };
  const response = await ask(path, { ...options, headers });
  yield* eventsOf(response);
}

/** Events of an answer that has begun. */
export async function* eventsOf(response: Response): AsyncGenerator<SentEvent> {
  if (!response.body) return;
  const reader = response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield { event: value.event ?? "message", data: value.data };
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Milliseconds before a stream that broke is opened again: the first time, and at most. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

/** A pause before a stream is opened again. */
export interface Wait {
  /** When it ends, as `Date.now()` counts. */
  readonly until: number;
  /** End it now. */
  readonly now: () => void;
}

/**
 * Whether asking again would not help: the gateway itself has refused. An answer of a proxy in front
 * of it, which has no code of the gateway's, may be another one in a moment.
 */
export function isFinal(error: unknown): error is GatewayError {
  return (
    error instanceof GatewayError &&
    error.code !== null &&
    error.status < 500 &&
    error.status !== 429
  );
}

/**
 * Follow a stream of JSON events for as long as `signal` isn't aborted and the page is in sight,
 * again after it broke.
 *
 * `onError` is told of each break (to show that what is on the screen is old), and once with
 * `null` when it goes on; `onWait` of each pause after one. An error that {@link isFinal} ends it.
 */
export async function follow<T>(
  path: string,
  signal: AbortSignal,
  onEvent: (value: T) => void,
  onError: (error: unknown) => void = () => undefined,
  onWait: (wait: Wait) => void = () => undefined,
): Promise<void> {
  let broken = false;
  await whileInSight(signal, async (seen) => {
    let pause = FIRST_PAUSE;
    while (!seen.aborted) {
      try {
        for await (const { data } of events(path, { signal: seen })) {
          const value: unknown = JSON.parse(data);
          // The gateway ends a stream so, of a key that has been revoked meanwhile, for instance.
          if (isError(value)) throw new Unreachable(value.error.message);
          if (broken) {
            broken = false;
            onError(null);
          }
          pause = FIRST_PAUSE;
          onEvent(value as T);
        }
      } catch (error) {
        if (seen.aborted) return;
        broken = true;
        onError(error);
        if (isFinal(error)) return;
      }
      await sleep(pause, seen, broken ? onWait : undefined);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  });
}

function isError(value: unknown): value is { error: { message: string } } {
  if (typeof value !== "object" || value === null || !("error" in value)) return false;
  const { error } = value;
  return typeof error === "object" && error !== null && "message" in error;
}

/** Resolves after so long, or as soon as `signal` is aborted; `tell` may end it too. */
export function sleep(
  milliseconds: number,
  signal: AbortSignal,
  tell?: (wait: Wait) => void,
): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done, { once: true });
    tell?.({ until: Date.now() + milliseconds, now: done });
  });
}
