import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { actions as t } from "../texts/en/common";
import { Button } from "./Button";
import { ErrorNote } from "./ErrorNote";

type Load = () => Promise<{ readonly default: ComponentType }>;

/**
 * A screen whose code is fetched when it is first opened.
 *
 * Browsers remember that a module could not be fetched and don't ask for it again (WHATWG HTML,
 * "module map"), and after an update its name may be another one. So the page is loaded anew where a
 * second try fails too and the gateway answers.
 */
export function Lazy({ load }: { readonly load: Load }) {
  /** What came of which `load`. */
  const loaded = useSignal<{ readonly load: Load; readonly Screen: ComponentType } | null>(null);
  const error = useSignal<unknown>(null);
  const tries = useSignal(0);
  const failed = useRef<Load | null>(null);
  useEffect(() => {
    let wanted = true; // what comes later than the next screen's is not shown in its place
    error.value = null;
    load().then(
      (module) => wanted && (loaded.value = { load, Screen: module.default }),
      async (reason: unknown) => {
        const anew = failed.current === load && (await isThere());
        failed.current = load;
        if (!wanted) return;
        if (anew) location.reload();
        else error.value = reason;
      },
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

/** Whether the page can be had. */
async function isThere(): Promise<boolean> {
  const init = { headers: { Accept: "text/html" }, cache: "no-store" } as const;
  return fetch(location.pathname, init).then(
    (answer) => answer.ok,
    () => false,
  );
}
