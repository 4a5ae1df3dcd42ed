import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { actions as t } from "../texts/en/common";
import { Button } from "./Button";
import { ErrorNote } from "./ErrorNote";

type Load = () => Promise<{ readonly default: ComponentType }>;

/** A screen whose code is fetched when it is first opened. */
export function Lazy({ load }: { readonly load: Load }) {
  /** What came of which `load`. */
  const loaded = useSignal<{ readonly load: Load; readonly Screen: ComponentType } | null>(null);
  const error = useSignal<unknown>(null);
  const tries = useSignal(0);
  useEffect(() => {
    let wanted = true; // what comes later than the next screen's is not shown in its place
    error.value = null;
    load().then(
      (module) => wanted && (loaded.value = { load, Screen: module.default }),
      (reason: unknown) => wanted && (error.value = reason),
    );
    return () => {
      wanted = false;
    };
  }, [load, tries.value]);
  if (error.value !== null)
    return (
      <section class="screen">
        <ErrorNote error={error.value}>
          <p>
            <Button onClick={() => (tries.value += 1)}>{t.tryAgain}</Button>
          </p>
        </ErrorNote>
      </section>
    );
  if (loaded.value?.load !== load) return <p class="screen-loading soft">{t.loading}</p>;
  const { Screen } = loaded.value;
  return <Screen />;
}
