import { afterEach, beforeEach, expect, it, vi } from "vitest";
import * as feed from "./feed";
import type { News } from "./requests";
import { LONGEST_PAGE, NO_FILTERS } from "./requests";

const PATIENCE = { timeout: 30_000 }; // of a busy machine

const TOLD = { under_way: [], not_shown: 0, lost: 0, problem: null };

/** What has ended at the gateway, the oldest first. */
let log: number[];
let tell: (news: News) => void;
let stop: () => void;

function page(query: URLSearchParams): News {
  const end = query.get("cursor");
  const newest = [...log].reverse().filter((id) => end === null || id < Number(end));
  const rows = newest.slice(0, Number(query.get("limit")));
  const next = rows.length < newest.length ? String(rows.at(-1)) : null;
  return { ...TOLD, ended: endedOf(rows), next };
}

const endedOf = (rows: readonly number[]): News["ended"] =>
  rows.map((id) => ({ id: String(id) })) as unknown as News["ended"];

function ends(rows: number): void {
  const from = log.length;
  const fresh = Array.from({ length: rows }, (_, row) => from + row);
  log.push(...fresh);
  tell({ ...TOLD, ended: endedOf(fresh.reverse()) });
}

beforeEach(() => {
  log = Array.from({ length: 100 }, (_, id) => id);
  vi.stubGlobal("fetch", async (path: string) => {
    const query = new URLSearchParams(path.split("?")[1]);
    if (query.get("follow") === null) return Response.json(page(query));
    const encoder = new TextEncoder();
    return new Response(
      new ReadableStream<Uint8Array>({
        start(controller) {
          tell = (news) => controller.enqueue(encoder.encode(`data: ${JSON.stringify(news)}\n\n`));
          tell(page(query));
        },
      }),
    );
  });
  stop = feed.watch(NO_FILTERS);
});

afterEach(() => {
  stop();
  vi.unstubAllGlobals();
});

const shown = (): readonly string[] => feed.list.value?.ended.map((one) => one.id) ?? [];

it("holds so many on a screen that is open for days, and goes on with those behind", async () => {
  await vi.waitFor(() => expect(shown()).toHaveLength(50), PATIENCE);
  ends(LONGEST_PAGE);
  ends(LONGEST_PAGE);
  await vi.waitFor(() => expect(shown()).toHaveLength(LONGEST_PAGE), PATIENCE);
  expect(shown()[0]).toBe(String(log.length - 1));
  ends(1);
  await vi.waitFor(() => expect(shown()).toHaveLength(LONGEST_PAGE + 1), PATIENCE);
  await feed.showOlder();
  const all = [...log].reverse().slice(0, LONGEST_PAGE + 51);
  expect(shown()).toEqual(all.map(String));
});
