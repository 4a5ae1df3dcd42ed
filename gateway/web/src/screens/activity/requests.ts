/** Requests as GET /admin/requests tells of them, and how news become part of a list. Pure. */

export const PARTS = ["queue", "load", "prefill", "generation"] as const;
export type Part = (typeof PARTS)[number];
/** Seconds; `null`: not begun, or not to be told. */
export type Timings = Readonly<Record<Part, number | null>>;

/** Where tokens of a prompt were that had not to be computed. */
export type CachedFrom = "slot" | "disk";

interface Told {
  readonly id: string;
  readonly started: string;
  readonly key: string;
  readonly name: string | null;
  readonly model: string;
  readonly personality: string | null;
  readonly method: string;
  readonly route: string;
  readonly streamed: boolean;
  readonly client: string | null;
  readonly seconds: number;
  readonly timings: Timings;
  readonly completion_tokens: number;
  readonly tokens_per_second: number | null;
}

export interface Running extends Told {
  readonly stage: "queued" | "loading" | "prefill" | "generating" | "answering";
  readonly percent: number | null;
  readonly position: number | null;
}

export interface Ended extends Told {
  readonly ended: string;
  readonly status: number;
  readonly code: string | null;
  readonly prompt_tokens: number;
  readonly cached_tokens: number;
  /** Missing: its gateway is older, and doesn't tell. */
  readonly cached_from?: CachedFrom | null;
}

export interface Kept {
  /** `null`: in memory only. */
  readonly seconds: number | null;
  /** At most so many. */
  readonly requests: number;
}

export interface News {
  readonly under_way: readonly Running[];
  readonly not_shown: number;
  /** The newest first. Without `next`, those that are new. */
  readonly ended: readonly Ended[];
  /** Only in pages, in the first event of a stream, and where it may have left some out. */
  readonly next?: string | null;
  /** The same. */
  readonly kept?: Kept;
  readonly lost: number;
  readonly problem: string | null;
}

export interface List {
  readonly ended: readonly Ended[];
  /** Where older ones begin; `null`: there are none. */
  readonly next: string | null;
  /** How many of them came because somebody wanted to see older ones. */
  readonly wanted: number;
}

/** So many of the newest are left of a list that is too long: as many as a page may have. */
export const LONGEST_PAGE = 500;

/** Whether `list` has grown, by what has ended since, to what a page that is open for days can't hold. */
export function isTooLong(list: List): boolean {
  return list.ended.length > 2 * LONGEST_PAGE + list.wanted;
}

/** `list` without its end: what `page`, the newest anew, has, and what ended while that was asked for. */
export function shortened(list: List, page: News): List {
  const first = list.ended.findIndex((one) => one.id === page.ended[0]?.id);
  const newer = list.ended.slice(0, Math.max(first, 0));
  return { ended: [...newer, ...page.ended], next: page.next ?? null, wanted: 0 };
}

/** What is shown after `news` came: what was shown before stays, unless there may be a gap. */
export function withNews(list: List | null, news: News): List {
  if (list === null) return { ended: news.ended, next: news.next ?? null, wanted: 0 };
  if (news.next !== undefined) return withPage(list, { ...news, next: news.next });
  const known = new Set(list.ended.map((one) => one.id));
  const fresh = news.ended.filter((one) => !known.has(one.id));
  return fresh.length === 0 ? list : { ...list, ended: [...fresh, ...list.ended] };
}

/** The same after the newest came anew: a stream begins, or it left some out. */
function withPage(list: List, page: News & { readonly next: string | null }): List {
  const newest = new Set(page.ended.map((one) => one.id));
  const older = list.ended.filter((one) => !newest.has(one.id));
  const touches = older.length < list.ended.length || page.next === null;
  if (!touches || older.length === 0) return { ended: page.ended, next: page.next, wanted: 0 };
  return { ...list, ended: [...page.ended, ...older] };
}

/** What is shown after a page of older ones came. */
export function withOlder(list: List, page: News): List {
  const known = new Set(list.ended.map((one) => one.id));
  const older = page.ended.filter((one) => !known.has(one.id));
  const wanted = list.wanted + older.length;
  return { ended: [...list.ended, ...older], next: page.next ?? null, wanted };
}

export interface Filters {
  readonly key: string;
  readonly model: string;
  readonly status: string;
  /** Seconds. */
  readonly slow: string;
  readonly cached_from: string;
}

export const NO_FILTERS: Filters = {
  key: "",
  model: "",
  status: "",
  slow: "",
  cached_from: "",
};

/** The query of a route with `filters` and `more`; what is empty is left out. */
export function queryOf(filters: Filters, more: Readonly<Record<string, string>> = {}): string {
  const given = Object.entries({ ...filters, ...more }).filter(([, value]) => value !== "");
  return new URLSearchParams(given).toString();
}

export type Result = "ok" | "left" | "cancelled" | "refused" | "failed";

export function resultOf({ status, code }: Pick<Ended, "status" | "code">): Result {
  if (code === "cancelled") return "cancelled";
  if (status === 499) return "left";
  if (status >= 500) return "failed";
  return status >= 400 ? "refused" : "ok";
}

export interface Segment {
  readonly part: Part;
  readonly seconds: number;
  /** Percent of all of them. */
  readonly share: number;
}

/** The parts of a bar, those that take up something. */
export function segmentsOf(timings: Timings): readonly Segment[] {
  const all = PARTS.map((part) => ({ part, seconds: timings[part] ?? 0 }));
  const sum = all.reduce((total, { seconds }) => total + seconds, 0);
  return all
    .filter(({ seconds }) => seconds > 0)
    .map(({ part, seconds }) => ({ part, seconds, share: (100 * seconds) / sum }));
}
