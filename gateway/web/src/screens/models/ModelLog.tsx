import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { ErrorNote } from "../../components/ErrorNote";
import { LogView } from "../../components/LogView";
import { logOf } from "../../gateway/logs";
import { askJson } from "../../gateway/request";
import { models as t } from "../../texts/en/models";
import { entryPath } from "./facts";

/** What its llama-server wrote and writes. */
export function ModelLog({ name }: { readonly name: string }) {
  const source = useMemo(() => logOf(`${entryPath(name)}/log`), [name]);
  return <LogView title={t.log.title(name)} source={source} empty={t.log.empty} />;
}

/** Lines that are shown of a failure's log, at most. */
const LAST = 20;

interface Props {
  readonly name: string;
  /** How often it has been started: they are asked for again after each. */
  readonly starts: number;
}

/** What is written before the lines of each start: gateway/backends/local.py. */
const START = "--- start ";

/** The last lines of it, as they are now, and none of an earlier start. */
export function LastLines({ name, starts }: Props) {
  const lines = useSignal<readonly string[] | null>(null);
  const error = useSignal<unknown>(null);
  useEffect(() => {
    const control = new AbortController();
    const { signal } = control;
    askJson<{ lines: readonly string[] }>(`${entryPath(name)}/log?follow=false`, { signal }).then(
      (answer) => (lines.value = answer.lines),
      (reason: unknown) => {
        if (!signal.aborted) error.value = reason;
      },
    );
    return () => control.abort();
  }, [name, starts]);
  if (error.value !== null) return <ErrorNote error={error.value} />;
  if (lines.value === null) return null;
  if (lines.value.length === 0) return <p class="soft">{t.log.empty}</p>;
  const begun = lines.value.findLastIndex((one) => one.startsWith(START));
  return (
    <pre class="model-log" tabIndex={0} aria-label={t.log.title(name)}>
      {lines.value.slice(Math.max(begun, lines.value.length - LAST, 0)).join("\n")}
    </pre>
  );
}
