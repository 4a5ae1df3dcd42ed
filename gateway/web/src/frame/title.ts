import { useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { box } from "../gateway/connection";
import { overview, status } from "../gateway/live";
import { product } from "../texts/en/common";
import { frame as t } from "../texts/en/frame";
import { useSignal } from "@preact/signals";

/** The document's title: what loads or runs, the screen, the box. For tabs that are not in front. */
export function useTitle(screen: string): void {
  const shown = useSignal(screen);
  shown.value = screen;
  useSignalEffect(() => {
    document.title = [now(), shown.value, box.value?.name].filter(Boolean).join(" · ");
  });
  useEffect(
    () => () => {
      document.title = product;
    },
    [],
  );
}

function now(): string {
  const loads = status.value?.waiting[0];
  if (loads) return t.loads(loads.model, loads.percent);
  const running = overview.value?.in_flight ?? 0;
  return running > 0 ? t.running(running) : "";
}
