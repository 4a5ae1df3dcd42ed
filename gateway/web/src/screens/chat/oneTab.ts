/** One tab at a time writes an answer, though several may have its conversation open. */

import type { MessageId } from "../../conversations/types";

/** Milliseconds for which nobody is told of another tab: it may be this one before a reload. */
const UNTOLD = 300;

/**
 * Do `work` when no other tab does it for this answer; `waits` is called if one does.
 *
 * Without locks, which a page has that came by HTTPS or from this machine, all tabs do it: they read
 * the same stream, and write the same. Rejects if `signal` is aborted before it was its turn.
 */
export async function inOneTab(
  id: MessageId,
  signal: AbortSignal,
  waits: () => void,
  work: () => Promise<void>,
): Promise<void> {
  const locks = navigator.locks as LockManager | null | undefined;
  if (!locks) return work();
  const timer = setTimeout(waits, UNTOLD);
  await locks.request(`llm-gateway.answer:${id}`, { signal }, () => {
    clearTimeout(timer);
    return work();
  });
}

const channel =
  typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("llm-gateway.stop");

/** Have an answer stopped by whichever tab writes it. */
export function stopElsewhere(id: MessageId): void {
  channel?.postMessage(id);
}

/** Be told of answers that are stopped in another tab. */
export function onStopElsewhere(stop: (id: MessageId) => void): void {
  channel?.addEventListener("message", ({ data }: MessageEvent<MessageId>) => stop(data));
}
