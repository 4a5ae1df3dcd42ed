import { useSignal, type ReadonlySignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { isFinal, sleep } from "../gateway/events";
import type { LogSource } from "../gateway/logs";
import { whileInSight } from "../gateway/sight";
import { LogBuffer } from "./logLines";

/** Milliseconds before a log that ended or failed is asked for again: the first time, and at most. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

export interface Followed {
  readonly buffer: LogBuffer;
  /** Another number for each change of `buffer`, once a frame at most. */
  readonly version: ReadonlySignal<number>;
  /** Whether lines may come; not while it is asked for the first time, or again. */
  readonly open: ReadonlySignal<boolean>;
  /** Why none come; `final`: it isn't tried again by itself. */
  readonly error: ReadonlySignal<{ readonly reason: unknown; readonly final: boolean } | null>;
}

/**
 * Read `source` into a buffer for as long as the component is there and the page is in sight, again
 * after each end.
 */
export function useLog(source: LogSource, attempt: number): Followed {
  const buffer = useRef(new LogBuffer());
  const version = useSignal(0);
  const open = useSignal(false);
  const error = useSignal<{ reason: unknown; final: boolean } | null>(null);
  useEffect(() => {
    const control = new AbortController();
    let frame = 0;
    const changed = (): void => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        version.value += 1;
      });
    };
    const read = async (signal: AbortSignal): Promise<void> => {
      for await (const { lines, anew } of source(signal)) {
        open.value = true;
        error.value = null;
        if (anew) buffer.current.clear();
        buffer.current.add(lines);
        changed();
      }
    };
    const keep = async (signal: AbortSignal): Promise<void> => {
      let pause = FIRST_PAUSE;
      while (!signal.aborted) {
        const began = performance.now();
        try {
          await read(signal);
        } catch (reason) {
          if (signal.aborted) return;
          const final = isFinal(reason);
          error.value = { reason, final };
          if (final) return;
        } finally {
          open.value = false;
        }
        if (performance.now() - began > LONGEST_PAUSE) pause = FIRST_PAUSE;
        await sleep(pause, signal);
        pause = Math.min(2 * pause, LONGEST_PAUSE);
      }
    };
    buffer.current.clear();
    error.value = null;
    changed();
    void whileInSight(control.signal, keep);
    return () => {
      control.abort();
      cancelAnimationFrame(frame);
    };
  }, [source, attempt]);
  return { buffer: buffer.current, version, open, error };
}
