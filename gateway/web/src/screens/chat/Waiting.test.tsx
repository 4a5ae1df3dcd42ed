import { signal } from "@preact/signals";
import { act, cleanup, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { status } from "../../gateway/live";
import { inSight } from "../../gateway/sight";
import type { Status, WaitingModel } from "../../gateway/types";
import { NOTHING } from "./answer";
import type { Run } from "./run";
import { Waiting } from "./Waiting";

const PATIENCE = { timeout: 30_000 }; // of a busy machine

const TOLD = { model: "m", stage: "waiting", percent: null, queued: 3 };

/** The status where who asks is at `position` in the queue. */
function at(position: number): Status {
  const queue = [{ position, seconds: 0 }];
  return { waiting: [{ ...TOLD, queue } as unknown as WaitingModel] } as unknown as Status;
}

beforeEach(
  () =>
    void vi.useFakeTimers({
      toFake: ["setTimeout", "setInterval", "clearTimeout", "clearInterval"],
    }),
);
afterEach(() => {
  cleanup();
  status.value = null;
  inSight.value = true;
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const pass = (milliseconds: number): Promise<void> =>
  act(async () => void (await vi.advanceTimersByTimeAsync(milliseconds)));

it("takes one look at a queue at a time, and none where nobody sees it", async () => {
  const asked: { readonly signal: AbortSignal; readonly answer: (told: Response) => void }[] = [];
  vi.stubGlobal("fetch", (_: string, init: RequestInit) => {
    const signal = init.signal as AbortSignal;
    return new Promise((answer, refuse) => {
      signal.addEventListener("abort", () => refuse(new Error("aborted")));
      asked.push({ signal, answer });
    });
  });
  status.value = at(3);
  const [reconnects, elsewhere] = [signal(false), signal(false)];
  const since = performance.now();
  const run = { model: "m", since, answer: signal(NOTHING), reconnects, elsewhere };
  render(<Waiting run={run as unknown as Run} />);
  await pass(20_000);
  expect(asked).toHaveLength(1);
  await act(() => asked[0]?.answer(new Response(`data: ${JSON.stringify(at(2))}\n\n`)));
  await vi.waitFor(() => expect(screen.getByRole("status").textContent).toContain("2"), PATIENCE);
  await pass(20_000);
  expect(asked).toHaveLength(2);
  await act(() => void (inSight.value = false));
  expect(asked[1]?.signal.aborted).toBe(true);
  await pass(20_000);
  expect(asked).toHaveLength(2);
  await act(() => void (inSight.value = true));
  await pass(20_000);
  expect(asked).toHaveLength(3);
});
