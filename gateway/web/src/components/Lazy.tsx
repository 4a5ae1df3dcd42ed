import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { actions as t } from "../texts/en/common";
import { Button } from "./Button";
import { ErrorNote } from "./ErrorNote";

type Module = { readonly default: ComponentType };

/** A screen whose code is fetched when it is first opened. */
export function Lazy({ load }: { readonly load: () => Promise<Module> }) {
  const loaded = useSignal<ComponentType | null>(null);
  const error = useSignal<unknown>(null);
  const fetchIt = (): void => {
    error.value = null;
    load().then(
      (module) => (loaded.value = module.default),
      (reason: unknown) => (error.value = reason),
    );
  };
  useEffect(() => {
    loaded.value = null;
    fetchIt();
  }, [load]);
  if (error.value !== null)
    return (
      <ErrorNote error={error.value}>
        <p>
          <Button onClick={fetchIt}>{t.tryAgain}</Button>
        </p>
      </ErrorNote>
    );
  const Screen = loaded.value;
  return Screen ? <Screen /> : <p class="screen-loading soft">{t.loading}</p>;
}
