import { useSignal } from "@preact/signals";
import { Button } from "../../components/Button";
import { CopyButton } from "../../components/CopyButton";
import { Icon } from "../../components/Icon";
import { State } from "../../components/State";
import { When } from "../../components/When";
import { count, duration, exactly } from "../../format";
import { activity as t } from "../../texts/en/activity";
import type { Ended } from "./requests";
import { resultOf } from "./requests";
import { keyName, speed, what } from "./RunningTable";
import { inWords, TimingsBar } from "./Timings";

const COLUMNS = 10;

/** What ran, the newest first; a row opens to all that is known of it. */
export function EndedTable({ rows }: { readonly rows: readonly Ended[] }) {
  const open = useSignal<ReadonlySet<string>>(new Set());
  const toggle = (id: string): void => {
    const next = new Set(open.value);
    if (!next.delete(id)) next.add(id);
    open.value = next;
  };
  const { columns } = t;
  return (
    <div class="table-frame" tabIndex={0} role="region" aria-label={t.ended}>
      <table class="table requests">
        <caption class="visually-hidden">{t.ended}</caption>
        <thead>
          <tr>
            <th scope="col">
              <span class="visually-hidden">{columns.details}</span>
            </th>
            <th scope="col" class="time">
              {columns.time}
            </th>
            <th scope="col">{columns.model}</th>
            <th scope="col" class="who">
              {columns.key}
            </th>
            <th scope="col">{columns.status}</th>
            <th scope="col" class="wide bar">
              {columns.timings}
            </th>
            <th scope="col" class="number">
              {columns.seconds}
            </th>
            <th scope="col" class="number wide">
              {columns.bothTokens}
            </th>
            <th scope="col" class="number wider">
              {columns.speed}
            </th>
            <th scope="col" class="widest">
              {columns.client}
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((one) => (
            <Row key={one.id} one={one} open={open.value.has(one.id)} toggle={toggle} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface RowProps {
  readonly one: Ended;
  readonly open: boolean;
  readonly toggle: (id: string) => void;
}

function Row({ one, open, toggle }: RowProps) {
  const details = `details-${one.id}`;
  return (
    <>
      <tr data-request={one.id}>
        <td class="action">
          <Button
            kind="plain"
            label={(open ? t.details.hide : t.details.show)(what(one))}
            aria-expanded={open}
            aria-controls={open ? details : undefined}
            onClick={() => toggle(one.id)}
          >
            <Icon name={open ? "down" : "right"} size={16} />
          </Button>
        </td>
        <td class="time">
          <When time={one.ended} />
        </td>
        <td class="name" title={one.model}>
          {one.model}
          <small class="narrow">
            {keyName(one)}, <When time={one.ended} />
          </small>
        </td>
        <td class="who name" title={keyName(one)}>
          {keyName(one)}
        </td>
        <td>
          <ResultState one={one} />
        </td>
        <td class="wide">
          <TimingsBar timings={one.timings} />
        </td>
        <td class="number">{duration(one.seconds)}</td>
        <td class="number wide">
          {count(one.prompt_tokens)} → {count(one.completion_tokens)}
          {one.cached_tokens > 0 && (
            <small>{t.cached(one.cached_tokens, one.cached_from ?? null)}</small>
          )}
        </td>
        <td class="number wider">{speed(one.tokens_per_second)}</td>
        <td class="widest">{one.client ?? "–"}</td>
      </tr>
      {open && (
        <tr class="details" id={details}>
          <td colSpan={COLUMNS}>
            <Details one={one} />
          </td>
        </tr>
      )}
    </>
  );
}

function ResultState({ one }: { readonly one: Ended }) {
  const result = resultOf(one);
  switch (result) {
    case "ok":
      return <State state="ready" words={t.results.ok} />;
    case "left":
    case "cancelled":
      return <State state="waiting" words={t.results[result]} />;
    case "refused":
    case "failed":
      return <State state="failed" words={t.results[result](one.status)} />;
  }
}

function Details({ one }: { readonly one: Ended }) {
  const d = t.details;
  return (
    <div class="opened">
      <TimingsBar timings={one.timings} />
      <dl>
        <dt>{d.id}</dt>
        <dd>
          <code>{one.id}</code> <CopyButton text={one.id} label={d.copyId} />
        </dd>
        <dt>{d.timings}</dt>
        <dd>{inWords(one.timings)}</dd>
        <dt>{d.started}</dt>
        <dd>{exactly(new Date(one.started))}</dd>
        <dt>{t.columns.key}</dt>
        <dd>
          {one.name ?? t.unknownKey} <span class="soft">{one.key}</span>
        </dd>
        <dt>{d.client}</dt>
        <dd>{one.client ?? "–"}</dd>
        <dt>{d.route}</dt>
        <dd>
          <code>
            {one.method} {one.route}
          </code>{" "}
          <span class="soft">{one.streamed ? d.streamed : d.whole}</span>
        </dd>
        {one.personality !== null && (
          <>
            <dt>{d.personality}</dt>
            <dd>{one.personality}</dd>
          </>
        )}
        <dt>{d.prompt}</dt>
        <dd>
          {one.cached_tokens > 0
            ? d.cached(one.cached_tokens, one.prompt_tokens, one.cached_from ?? null)
            : count(one.prompt_tokens)}
        </dd>
        <dt>{d.completion}</dt>
        <dd>{count(one.completion_tokens)}</dd>
        {one.tokens_per_second !== null && (
          <>
            <dt>{d.speed}</dt>
            <dd>{d.perSecond(speed(one.tokens_per_second))}</dd>
          </>
        )}
        {one.code !== null && (
          <>
            <dt>{d.code}</dt>
            <dd>
              <code>{one.code}</code>
            </dd>
          </>
        )}
      </dl>
    </div>
  );
}
