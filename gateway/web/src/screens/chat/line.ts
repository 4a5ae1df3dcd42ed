/** The line over which an answer comes: whether it is silent, and when to try it again. */

/** Milliseconds of silence in the midst of an answer after which its connection is given up. */
const SILENCE = 45_000;
/** The same when the page comes into sight, or online: the network may be another one by now. */
const SHORT_SILENCE = 3000;

class Silent extends Error {}

/**
 * The same answer, which ends when nothing comes of it any more, heartbeats neither: for long, while
 * `isBegun()`; or for a moment, when the page comes into sight or online, if it can be read on at
 * another connection (`resumes`).
 *
 * The second value ends the watch.
 */
export function hear(
  response: Response,
  isBegun: () => boolean,
  resumes: boolean,
): readonly [Response, () => void] {
  let heard = Date.now();
  const silence = new AbortController();
  const look = (longest: number): void => {
    if (Date.now() - heard > longest) silence.abort(new Silent());
  };
  const timer = setInterval(() => isBegun() && look(SILENCE), 5000);
  const woken = (): void => {
    if (resumes && !document.hidden) look(SHORT_SILENCE);
  };
  document.addEventListener("visibilitychange", woken);
  addEventListener("online", woken);
  const listening = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(piece, controller) {
      heard = Date.now();
      controller.enqueue(piece);
    },
  });
  const body = response.body?.pipeThrough(listening, { signal: silence.signal }) ?? null;
  return [
    new Response(body),
    () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", woken);
      removeEventListener("online", woken);
    },
  ];
}

/** Wait, at most as long as it takes the browser to be online again; false if it was aborted. */
export function slept(milliseconds: number, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve(!signal.aborted);
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
