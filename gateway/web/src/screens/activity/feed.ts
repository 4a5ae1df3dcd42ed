/** What the screen shows, kept up to date while it is open and seen. */

import { signal } from "@preact/signals";
import { follow } from "../../gateway/events";
import { askJson } from "../../gateway/request";
import type { Filters, Kept, List, News, Running } from "./requests";
import {
  isTooLong,
  LONGEST_PAGE,
  NO_FILTERS,
  queryOf,
  shortened,
  withNews,
  withOlder,
} from "./requests";

const PAGE = "50";

export const filters = signal<Filters>(NO_FILTERS);
/** `null` until it came. */
export const running = signal<readonly Running[] | null>(null);
export const notShown = signal(0);
export const list = signal<List | null>(null);
/** How long requests are remembered; `null` until it came. */
export const kept = signal<Kept | null>(null);
export const lost = signal(0);
/** Why not all are recorded, in the gateway's words. */
export const problem = signal<string | null>(null);
/** Why what is shown may be old, or `null`. */
export const broken = signal<unknown>(null);
export const loadingOlder = signal(false);
export const olderError = signal<unknown>(null);

/** Follow the requests that `wanted` lets through, until the returned function is called. */
export function watch(wanted: Filters): () => void {
  const control = new AbortController();
  const { signal: ended } = control;
  list.value = null;
  broken.value = olderError.value = null;
  const path = `/admin/requests?${queryOf(wanted, { follow: "true", limit: PAGE })}`;
  void follow<News>(
    path,
    ended,
    (news) => {
      if (ended.aborted) return;
      take(news);
      void shorten(wanted, ended);
    },
    (error) => {
      if (!ended.aborted) broken.value = error;
    },
  );
  return () => control.abort();
}

function take(news: News): void {
  running.value = news.under_way;
  notShown.value = news.not_shown;
  list.value = withNews(list.value, news);
  if (news.kept) kept.value = news.kept;
  lost.value = news.lost;
  problem.value = news.problem;
}

let shortening: AbortSignal | null = null;

/** Leave the newest of a list that is too long: only the gateway knows where those behind begin. */
async function shorten(wanted: Filters, ended: AbortSignal): Promise<void> {
  const isDue = (): boolean => list.value !== null && isTooLong(list.value) && !loadingOlder.value;
  if (!isDue() || shortening === ended) return;
  shortening = ended;
  try {
    const query = queryOf(wanted, { limit: String(LONGEST_PAGE) });
    const page = await askJson<News>(`/admin/requests?${query}`, { signal: ended });
    if (!ended.aborted && list.value && isDue()) list.value = shortened(list.value, page);
  } catch {
    // with the next news again
  } finally {
    if (shortening === ended) shortening = null;
  }
}

/** Add the next page of older ones. */
export async function showOlder(): Promise<void> {
  const before = list.value;
  const wanted = filters.value;
  if (!before?.next || loadingOlder.value) return;
  loadingOlder.value = true;
  olderError.value = null;
  try {
    const query = queryOf(wanted, { cursor: before.next, limit: PAGE });
    const page = await askJson<News>(`/admin/requests?${query}`);
    // Not where the list has another end by now.
    if (filters.value === wanted && list.value?.next === before.next)
      list.value = withOlder(list.value, page);
  } catch (error) {
    olderError.value = error;
  } finally {
    loadingOlder.value = false;
  }
}
