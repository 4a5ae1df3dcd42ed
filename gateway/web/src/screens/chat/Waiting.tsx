import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { events, sleep } from "../../gateway/events";
import { status } from "../../gateway/live";
import { whileInSight } from "../../gateway/sight";
import type { Status, WaitingModel } from "../../gateway/types";
import { chat as t } from "../../texts/en/chat";
import type { Run } from "./run";
import { stageOf, type Stage } from "./stage";

/** What an answer waits for, and for how long already. */
export function Waiting({ run }: { readonly run: Run }) {
  const now = useSignal(performance.now());
  useEffect(() => {
    const timer = setInterval(() => (now.value = performance.now()), 1000);
    return () => clearInterval(timer);
  }, [run]);
  const seconds = Math.max(0, (now.value - run.since) / 1000);
  const answer = run.answer.value;
  const told = status.value?.waiting.find((one) => one.model === run.model);
  const followed = useMemo(() => ({ told, at: performance.now() }), [told]);
  const asked = usePlace(run.model, told !== undefined && told.stage !== "starting");
  // How long it had waited when that was told, which may be seconds ago.
  const newest = asked ?? followed;
  const stage = stageOf(answer, newest.told, Math.max(0, (newest.at - run.since) / 1000));
  const words = run.elsewhere.value
    ? t.stages.elsewhere
    : run.reconnects.value
      ? t.stages.reconnecting
      : wordsOf(stage, run.model);
  return (
    <p class="waiting">
      <Ring percent={"percent" in stage ? stage.percent : null} />
      <span role="status">{words}</span>
      {seconds >= 1 && <span class="soft">{t.seconds(seconds)}</span>}
    </p>
  );
}

function wordsOf(stage: Stage, model: string): string {
  switch (stage.kind) {
    case "waiting":
      return t.stages.waiting(stage.position, stage.of);
    case "loading":
      return t.stages.loading(model, stage.percent);
    case "reading":
      return t.stages.reading(stage.percent);
    default:
      return t.stages[stage.kind];
  }
}

const AROUND = 2 * Math.PI * 6;

function Ring({ percent }: { readonly percent: number | null }) {
  const share = percent ?? 25;
  return (
    <svg
      class={percent === null ? "ring turns" : "ring"}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      stroke-width="2.5"
      aria-hidden="true"
    >
      <circle cx="8" cy="8" r="6" opacity="0.25" />
      <circle
        cx="8"
        cy="8"
        r="6"
        transform="rotate(-90 8 8)"
        stroke-dasharray={`${(AROUND * share) / 100} ${AROUND}`}
      />
    </svg>
  );
}

interface Told {
  readonly told: WaitingModel | undefined;
  /** When, as `performance.now()` has it. */
  readonly at: number;
}

/** Milliseconds from one look at a queue to the next. */
const LOOK = 2000;

/**
 * What is said of a model that is waited for, every two seconds: the status that is followed has no
 * event for each step of a queue.
 */
function usePlace(model: string, wanted: boolean): Told | null {
  const found = useSignal<Told | null>(null);
  useEffect(() => {
    found.value = null;
    if (!wanted) return;
    const control = new AbortController();
    const look = async (signal: AbortSignal): Promise<void> => {
      try {
        for await (const { data } of events("/status", { signal })) {
          const { waiting } = JSON.parse(data) as Status;
          const told = waiting.find((one) => one.model === model);
          found.value = { told, at: performance.now() };
          return; // one is enough; leaving the loop closes the stream
        }
      } catch {
        // the answer itself says if the gateway is gone
      }
    };
    // One at a time: over a slow network they would take all connections that a browser has.
    void whileInSight(control.signal, async (signal) => {
      for (;;) {
        await sleep(LOOK, signal);
        if (signal.aborted) return;
        await look(signal);
      }
    });
    return () => control.abort();
  }, [model, wanted]);
  return found.value;
}
