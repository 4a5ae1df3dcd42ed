import { useEffect } from "preact/hooks";
import { signal } from "@preact/signals";
import { ago, exactly } from "../format";

const now = signal(new Date());
let watchers = 0;
let timer: ReturnType<typeof setInterval> | undefined;

/** "2 min ago", kept right; the exact time on hover. */
export function When({ time }: { readonly time: string }) {
  useEffect(() => {
    watchers += 1;
    timer ??= setInterval(() => (now.value = new Date()), 10_000);
    return () => {
      watchers -= 1;
      if (watchers === 0) {
        clearInterval(timer);
        timer = undefined;
      }
    };
  }, []);
  const when = new Date(time);
  const current = now.value > when ? now.value : new Date();
  return (
    <time dateTime={time} title={exactly(when)}>
      {ago(when, current)}
    </time>
  );
}
