/** Whether somebody looks at the page. */

import { signal } from "@preact/signals";

/** Milliseconds out of sight after which nothing is followed any more. */
export const OUT_OF_SIGHT = 20_000;

/** Not in a tab behind another one, unless it went there a moment ago. */
export const inSight = signal(!document.hidden);

let hiding: ReturnType<typeof setTimeout> | undefined;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => (inSight.value = false), OUT_OF_SIGHT);
  else inSight.value = true;
});

/**
 * Do `work` while the page is in sight, until it is over by itself or `signal` is aborted. The
 * signal that it gets is aborted as well when the page goes out of sight; it begins anew afterwards.
 *
 * A browser has six connections to one origin of HTTP/1.1, for all tabs together: those that nobody
 * looks at must not hold any.
 */
export async function whileInSight(
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  while (!signal.aborted) {
    await untilInSight(signal);
    if (signal.aborted) return;
    const control = new AbortController();
    const stop = (): void => control.abort();
    signal.addEventListener("abort", stop, { once: true });
    const unsubscribe = inSight.subscribe((is) => {
      if (!is) stop();
    });
    try {
      await work(control.signal);
    } finally {
      unsubscribe();
      signal.removeEventListener("abort", stop);
    }
    if (!control.signal.aborted) return;
  }
}

function untilInSight(signal: AbortSignal): Promise<void> {
  if (inSight.peek()) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      signal.removeEventListener("abort", done);
      unsubscribe();
      resolve();
    };
    const unsubscribe = inSight.subscribe((is) => {
      if (is) done();
    });
    signal.addEventListener("abort", done, { once: true });
  });
}
