/** What runs and what ran, of all keys, and a button that cancels what runs. Never what was said. */

import { useEffect } from "preact/hooks";
import { Button } from "../../components/Button";
import { Empty } from "../../components/Empty";
import { ErrorNote } from "../../components/ErrorNote";
import { href } from "../../router";
import { activity as t } from "../../texts/en/activity";
import { EndedTable } from "./EndedTable";
import * as feed from "./feed";
import { FilterBar } from "./FilterBar";
import { NO_FILTERS } from "./requests";
import { RunningTable } from "./RunningTable";
import { Legend } from "./Timings";
import "./activity.css";

export default function Activity() {
  const wanted = feed.filters.value;
  useEffect(() => feed.watch(wanted), [wanted]);
  return (
    <section class="screen activity">
      <h1 class="in-topbar">{t.title}</h1>
      <Trouble />
      <section>
        <h2>{t.running}</h2>
        {feed.running.value === null ? <p class="soft">{t.loading}</p> : <RunningTable />}
      </section>
      <section>
        <h2>{t.ended}</h2>
        {!isEmpty() && (
          <>
            <FilterBar />
            <Legend />
          </>
        )}
        <EndedPart />
      </section>
    </section>
  );
}

function isFiltered(): boolean {
  return Object.values(feed.filters.value).some((value) => value !== "");
}

/** Whether there is nothing to choose from. */
function isEmpty(): boolean {
  return !isFiltered() && feed.list.value?.ended.length === 0;
}

function Trouble() {
  const lost = feed.lost.value;
  if (feed.broken.value !== null)
    return feed.list.value === null ? (
      <ErrorNote error={feed.broken.value} />
    ) : (
      <div class="note warn" role="status">
        <p>{t.stale}</p>
      </div>
    );
  if (feed.problem.value === null && lost === 0) return null;
  return (
    <div class="note warn" role="status">
      {feed.problem.value !== null && <p>{feed.problem.value}</p>}
      {lost > 0 && <p>{t.lost(lost)}</p>}
    </div>
  );
}

function EndedPart() {
  const list = feed.list.value;
  if (list === null) return feed.broken.value === null ? <p class="soft">{t.loading}</p> : null;
  if (list.ended.length === 0) return <Nothing />;
  const kept = feed.kept.value;
  return (
    <>
      <EndedTable rows={list.ended} />
      {feed.olderError.value !== null && <ErrorNote error={feed.olderError.value} />}
      {list.next === null ? (
        kept && <p class="soft">{t.end(kept)}</p>
      ) : (
        <p>
          <Button disabled={feed.loadingOlder.value} onClick={() => void feed.showOlder()}>
            {feed.loadingOlder.value ? t.loading : t.older}
          </Button>
        </p>
      )}
    </>
  );
}

function Nothing() {
  return isFiltered() ? (
    <Empty title={t.noMatch}>
      <Button onClick={() => (feed.filters.value = NO_FILTERS)}>{t.clear}</Button>
    </Empty>
  ) : (
    <Empty title={t.none}>
      <p>{t.noneHow}</p>
      <a class="button" href={href("chat")}>
        {t.toChat}
      </a>
    </Empty>
  );
}
