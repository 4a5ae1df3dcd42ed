import { useSignal } from "@preact/signals";
import { Button } from "../../components/Button";
import { Confirm } from "../../components/Dialog";
import { wordsOf } from "../../components/ErrorNote";
import { Icon } from "../../components/Icon";
import { State } from "../../components/State";
import { toast } from "../../components/Toasts";
import { count, duration } from "../../format";
import { ask } from "../../gateway/request";
import { activity as t } from "../../texts/en/activity";
import { notShown, running } from "./feed";
import type { Running } from "./requests";
import { TimingsBar } from "./Timings";

/** What runs, oldest first, each with a button that cancels it. */
export function RunningTable() {
  const cancelling = useSignal<Running | null>(null);
  const rows = running.value ?? [];
  const { columns } = t;
  return (
    <>
      {rows.length === 0 ? (
        <p class="soft">{t.nothingRuns}</p>
      ) : (
        <div class="table-frame" tabIndex={0} role="region" aria-label={t.running}>
          <table class="table requests">
            <caption class="visually-hidden">{t.running}</caption>
            <thead>
              <tr>
                <th scope="col">{columns.model}</th>
                <th scope="col" class="who">
                  {columns.key}
                </th>
                <th scope="col">{columns.stage}</th>
                <th scope="col" class="wide bar">
                  {columns.timings}
                </th>
                <th scope="col" class="number wide">
                  {columns.tokens}
                </th>
                <th scope="col" class="number wider">
                  {columns.speed}
                </th>
                <th scope="col" class="number">
                  {columns.seconds}
                </th>
                <th scope="col">
                  <span class="visually-hidden">{columns.actions}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map((one) => (
                <tr key={one.id} data-request={one.id}>
                  <td class="name" title={one.model}>
                    {one.model}
                    <small class="narrow">{keyName(one)}</small>
                  </td>
                  <td class="who name" title={keyName(one)}>
                    {keyName(one)}
                  </td>
                  <td>
                    <Stage request={one} />
                  </td>
                  <td class="wide">
                    <TimingsBar timings={one.timings} />
                  </td>
                  <td class="number wide">{count(one.completion_tokens)}</td>
                  <td class="number wider">{speed(one.tokens_per_second)}</td>
                  <td class="number">{duration(one.seconds)}</td>
                  <td class="action">
                    <Button
                      kind="plain"
                      class="cancel"
                      title={t.cancel}
                      onClick={() => (cancelling.value = one)}
                    >
                      <Icon name="close" size={16} />
                      <span class="word">{t.cancel}</span>{" "}
                      <span class="visually-hidden">{what(one)}</span>
                    </Button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {notShown.value > 0 && <p class="soft">{t.notShown(notShown.value)}</p>}
      {cancelling.value && (
        <Confirm
          title={t.cancelTitle}
          text={t.cancelText(what(cancelling.value))}
          action={t.cancelAction}
          keep={t.keepRunning}
          onConfirm={() => cancelling.value && void cancel(cancelling.value)}
          onClose={() => (cancelling.value = null)}
        />
      )}
    </>
  );
}

async function cancel({ id }: Running): Promise<void> {
  try {
    await ask(`/admin/requests/${encodeURIComponent(id)}`, { method: "DELETE" });
    toast(t.cancelled);
  } catch (error) {
    toast(wordsOf(error));
  }
}

function Stage({ request: { stage, percent, position } }: { readonly request: Running }) {
  switch (stage) {
    case "queued":
      return (
        <State
          state="waiting"
          words={position === null ? t.stages.queued : t.stages.position(position)}
        />
      );
    case "loading":
      return <State state="loading" percent={percent} words={t.stages.loading} />;
    default:
      return <State state="ready" words={t.stages[stage]} />;
  }
}

export function keyName({ name, key }: { readonly name: string | null; readonly key: string }) {
  return name ?? key;
}

export function what(one: {
  readonly model: string;
  readonly name: string | null;
  readonly key: string;
}): string {
  return t.details.what(one.model, keyName(one));
}

export function speed(perSecond: number | null): string {
  return perSecond === null ? "–" : perSecond.toFixed(perSecond < 10 ? 1 : 0);
}
