/** A log of the gateway as lines: `/admin/log`, `/admin/models/NAME/log`. */

import { GatewayError } from "./errors";
import { eventsOf } from "./events";
import { ask } from "./request";

/** Lines that have come together. `anew`: what came before is in it again, and is to be forgotten. */
export interface Batch {
  readonly lines: readonly string[];
  readonly anew?: boolean;
}

/** Something that gives lines for as long as `signal` isn't aborted. */
export type LogSource = (signal: AbortSignal) => AsyncIterable<Batch>;

/**
 * A log that is followed as events. `path`: of its route.
 *
 * It ends with the stream, and throws what `events` throws: whoever reads it asks again.
 */
export function logOf(path: string): LogSource {
  return async function* (signal) {
    const response = await ask(path, { signal, headers: { Accept: "text/event-stream" } });
    yield { lines: [], anew: true }; // it is open, and there may be no line for a long time
    for await (const { event, data } of eventsOf(response)) {
      if (event === "error") throw new GatewayError(messageOf(data), 503, null, null);
      yield { lines: data.split("\n") };
    }
  };
}

/** What the gateway says when it ends a stream: that it is shutting down, for one. */
function messageOf(data: string): string {
  try {
    const said = JSON.parse(data) as { error?: { message?: unknown } };
    if (typeof said.error?.message === "string") return said.error.message;
  } catch {
    // a text
  }
  return data;
}
