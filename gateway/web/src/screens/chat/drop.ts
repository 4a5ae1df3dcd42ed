import { useSignal, type ReadonlySignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { hasFiles } from "../../drops";

/** Take files that are dropped anywhere in the window. Tells whether some are held over it. */
export function useDrop(take: (dropped: readonly File[]) => void): ReadonlySignal<boolean> {
  const held = useSignal(false);
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => {
    const control = new AbortController();
    const { signal } = control;
    const isMeant = (event: DragEvent): boolean =>
      hasFiles(event) && document.querySelector("dialog[open]") === null;
    addEventListener(
      "dragover",
      (event) => {
        if (!isMeant(event)) return;
        event.preventDefault();
        if (event.dataTransfer) event.dataTransfer.dropEffect = "copy";
        held.value = true;
      },
      { signal },
    );
    addEventListener(
      "dragleave",
      (event) => {
        if (event.relatedTarget === null) held.value = false; // out of the window
      },
      { signal },
    );
    addEventListener(
      "drop",
      (event) => {
        held.value = false;
        if (!isMeant(event)) return;
        event.preventDefault();
        latest.current([...(event.dataTransfer?.files ?? [])]);
      },
      { signal },
    );
    return () => control.abort();
  }, []);
  return held;
}
