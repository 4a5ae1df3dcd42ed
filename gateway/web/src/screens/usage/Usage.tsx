/** Tokens and requests by day, key and model; for a plain key its own, and what is left of it. */

import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Button } from "../../components/Button";
import { Empty } from "../../components/Empty";
import { ErrorNote, wordsOf } from "../../components/ErrorNote";
import { Icon } from "../../components/Icon";
import { Table, type Column } from "../../components/Table";
import { toast } from "../../components/Toasts";
import { count } from "../../format";
import { role } from "../../gateway/live";
import { ask, askJson } from "../../gateway/request";
import { href } from "../../router";
import { actions } from "../../texts/en/common";
import { chart } from "../../texts/en/chart";
import { usage as t } from "../../texts/en/usage";
import { Chart } from "./Chart";
import { OwnKey, type OwnKeyInfo } from "./OwnKey";
import { Choice } from "./Choice";
import type { Grouping, Measure, Total, Used } from "./totals";
import { lastDays, seriesOf, sum, tokensOf, totalsBy } from "./totals";
import "./usage.css";

/** Of the table behind the chart, at most: the others are in the CSV. */
const ROWS = 400;
const RANGES = [7, 30, 90] as const;
const range = signal<number>(30);
const measure = signal<Measure>("tokens");
const by = signal<Grouping>("model");

interface Seen {
  readonly days: number;
  readonly rows: readonly Used[];
  readonly own: OwnKeyInfo;
}

export default function Usage() {
  const seen = useSignal<Seen | null>(null);
  const error = useSignal<unknown>(null);
  const again = useSignal(0);
  const days = range.value;
  const admin = role.value === "admin";
  useEffect(() => {
    const control = new AbortController();
    load(days, admin, control.signal).then(
      (found) => {
        seen.value = found;
        error.value = null;
      },
      (reason: unknown) => {
        if (!control.signal.aborted) error.value = reason;
      },
    );
    return () => control.abort();
  }, [days, admin, again.value]);
  return (
    <section class="screen usage">
      <header>
        <h1 class={admin ? "in-topbar" : undefined}>{admin ? t.title : t.ownTitle}</h1>
        <Button onClick={() => void download(days, admin)}>
          <Icon name="download" size={16} /> {t.download}
        </Button>
      </header>
      <Controls admin={admin} />
      {error.value !== null && (
        <ErrorNote error={error.value}>
          <p>
            <Button onClick={() => (again.value += 1)}>{actions.tryAgain}</Button>
          </p>
        </ErrorNote>
      )}
      {seen.value === null ? (
        error.value === null && <p class="soft">{t.loading}</p>
      ) : (
        <Shown seen={seen.value} admin={admin} />
      )}
    </section>
  );
}

function path(days: number, admin: boolean): string {
  const fields = admin ? "day,key,model" : "day,model";
  return `${admin ? "/admin/usage" : "/key/usage"}?days=${days}&by=${fields}`;
}

async function load(days: number, admin: boolean, signal: AbortSignal): Promise<Seen> {
  const [found, own] = await Promise.all([
    askJson<{ usage: readonly Used[] }>(path(days, admin), { signal }),
    askJson<OwnKeyInfo>("/key", { signal }),
  ]);
  return { days, rows: found.usage, own };
}

/** Save what the gateway has as CSV; as a link it would come without the key. */
async function download(days: number, admin: boolean): Promise<void> {
  try {
    const response = await ask(`${path(days, admin)}&format=csv`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = `usage-${days}-days.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    toast(wordsOf(error));
  }
}

function Controls({ admin }: { readonly admin: boolean }) {
  const groupings: readonly Grouping[] = admin ? ["model", "key", "day"] : ["model", "day"];
  return (
    <div class="controls">
      <Choice
        title={t.range}
        value={range}
        options={RANGES.map((one) => [one, t.days(one)] as const)}
      />
      <Choice
        title={t.show}
        value={measure}
        options={[
          ["tokens", t.tokens],
          ["requests", t.requests],
        ]}
      />
      <Choice
        title={t.by}
        value={by}
        options={groupings.map((one) => [one, t.bys[one]] as const)}
      />
    </div>
  );
}

function Shown({ seen, admin }: { readonly seen: Seen; readonly admin: boolean }) {
  const { rows, days, own } = seen;
  const limited = Object.keys(own.limits).length > 0 || own.expires !== null;
  const grouping: Grouping = by.value === "key" && !admin ? "model" : by.value;
  return (
    <>
      {(!admin || limited) && <OwnKey info={own} />}
      {rows.length === 0 ? (
        <Empty title={t.none}>
          <p>{t.noneHow}</p>
          <a class="button" href={href("chat")}>
            {t.toChat}
          </a>
        </Empty>
      ) : (
        <Filled rows={rows} days={days} grouping={grouping} />
      )}
    </>
  );
}

interface FilledProps {
  readonly rows: readonly Used[];
  readonly days: number;
  readonly grouping: Grouping;
}

function Filled({ rows, days, grouping }: FilledProps) {
  const total = sum(rows);
  const dates = lastDays(days, new Date());
  const split = grouping === "day" ? "model" : grouping;
  return (
    <>
      <ul class="totals">
        <Figure value={tokensOf(total)} words={t.totals.tokens} />
        <Figure value={total.prompt} words={t.totals.prompt} />
        {total.cached > 0 && <Figure value={total.cached} words={t.totals.cached} />}
        <Figure value={total.completion} words={t.totals.completion} />
        <Figure value={total.requests} words={t.totals.requests} />
      </ul>
      <Chart
        title={t.chart(measure.value === "tokens" ? t.tokens : t.requests, days, t.bys[split])}
        days={dates}
        series={seriesOf(rows, split, measure.value, dates, t.others)}
        measure={measure.value}
      />
      <Behind key={days} rows={rows} />
      <Table
        key={grouping}
        title={t.table(t.bys[grouping])}
        columns={columns(grouping)}
        rows={totalsBy(rows, grouping)}
        rowKey={(row) => row.id}
        first={{
          head: grouping === "day" ? t.bys.day : t.columns.tokens,
          descending: true,
        }}
      />
    </>
  );
}

/** What the chart and the totals are made of: the rows that the CSV has. */
function Behind({ rows }: { readonly rows: readonly Used[] }) {
  const open = useSignal(false);
  const newest = [...rows].sort((a, b) => b.day.localeCompare(a.day));
  return (
    <details onToggle={({ currentTarget }) => (open.value = currentTarget.open)}>
      <summary>{chart.table}</summary>
      {open.value && (
        <>
          <Table
            title={t.behind}
            titleHidden
            columns={behindColumns(rows.some((row) => row.key !== undefined))}
            rows={newest.slice(0, ROWS)}
            rowKey={(row) => `${row.day} ${row.key ?? ""} ${row.model}`}
            first={{ head: t.bys.day, descending: true }}
          />
          {rows.length > ROWS && <p class="soft">{t.inCsv(rows.length - ROWS)}</p>}
        </>
      )}
    </details>
  );
}

function behindColumns(keys: boolean): readonly Column<Used>[] {
  const key: Column<Used> = {
    head: t.bys.key,
    cell: (row) => row.name ?? row.key,
    sort: (row) => (row.name ?? row.key ?? "").toLowerCase(),
  };
  return [
    { head: t.bys.day, cell: (row) => row.day, sort: (row) => row.day },
    ...(keys ? [key] : []),
    { head: t.bys.model, cell: (row) => row.model, sort: (row) => row.model.toLowerCase() },
    number(t.columns.requests, (row) => row.requests),
    number(t.columns.prompt, (row) => row.prompt_tokens),
    number(t.columns.completion, (row) => row.completion_tokens),
    number(t.columns.cached, (row) => row.cached_tokens ?? 0),
  ];
}

interface FigureProps {
  readonly value: number;
  readonly words: (value: number) => string;
}

function Figure({ value, words }: FigureProps) {
  return (
    <li>
      <strong>{count(value)}</strong> {words(Math.round(value))}
    </li>
  );
}

function columns(grouping: Grouping): readonly Column<Total>[] {
  return [
    {
      head: t.bys[grouping],
      cell: (row) => row.name,
      sort: (row) => (grouping === "day" ? row.id : row.name.toLowerCase()),
    },
    number(t.columns.requests, (row: Total) => row.requests),
    { ...number(t.columns.prompt, (row: Total) => row.prompt), kind: "part" },
    { ...number(t.columns.cached, (row: Total) => row.cached), kind: "part" },
    { ...number(t.columns.completion, (row: Total) => row.completion), kind: "part" },
    number(t.columns.tokens, tokensOf),
  ];
}

function number<Row>(head: string, value: (row: Row) => number): Column<Row> {
  return { head, number: true, sort: value, cell: (row) => count(value(row)) };
}
