import { useSignal, type ReadonlySignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { askJson } from "./request";

export interface Polled<T> {
  /** The newest answer. */
  readonly value: ReadonlySignal<T | null>;
  /** Why the newest question has none; what is in `value` is older then. */
  readonly error: ReadonlySignal<unknown>;
  readonly again: () => void;
}

/** Ask a route every `seconds` for as long as the component is there and the page can be seen. */
export function usePolled<T>(path: string, seconds: number): Polled<T> {
  const value = useSignal<T | null>(null);
  const error = useSignal<unknown>(null);
  const attempt = useSignal(0);
  useEffect(() => {
    const control = new AbortController();
    const { signal } = control;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async (): Promise<void> => {
      clearTimeout(timer);
      try {
        const found = await askJson<T>(path, { signal });
        if (signal.aborted) return;
        value.value = found;
        error.value = null;
      } catch (reason) {
        if (signal.aborted) return;
        error.value = reason;
      }
      timer = setTimeout(() => void (document.hidden || look()), 1000 * seconds);
    };
    // In a tab that nobody sees nothing is asked; who comes back sees what is so now.
    const seen = (): void => void (document.hidden || look());
    document.addEventListener("visibilitychange", seen, { signal });
    void look();
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [path, seconds, attempt.value]);
  return { value, error, again: () => (attempt.value += 1) };
}
