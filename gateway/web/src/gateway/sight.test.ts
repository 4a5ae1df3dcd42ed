import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { follow } from "./events";
import { inSight, OUT_OF_SIGHT, whileInSight } from "./sight";

const PATIENCE = { timeout: 30_000 }; // of a busy machine

let control: AbortController;

/** The browser shows another tab, or this one again. */
function turn(hidden: boolean): void {
  Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  control = new AbortController();
});
afterEach(() => {
  control.abort();
  turn(false);
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("a tab", () => {
  it("that is left for a moment stays in sight", () => {
    turn(true);
    vi.advanceTimersByTime(OUT_OF_SIGHT - 1);
    turn(false);
    vi.advanceTimersByTime(OUT_OF_SIGHT);
    expect(inSight.value).toBe(true);
  });

  it("that was opened behind another one is out of sight", async () => {
    turn(true);
    vi.resetModules();
    const anew = await import("./sight");
    expect(anew.inSight.value).toBe(false);
    turn(false);
    expect(anew.inSight.value).toBe(true);
  });

  it("that is left for longer holds no stream open, and asks for it anew afterwards", async () => {
    const signals: AbortSignal[] = [];
    vi.stubGlobal("fetch", (_: string, init: RequestInit) => {
      const signal = init.signal as AbortSignal;
      signals.push(signal);
      return new Promise((_resolve, reject) =>
        signal.addEventListener("abort", () => reject(new Error("aborted"))),
      );
    });
    const errors: unknown[] = [];
    const over = follow("/admin/pulls", control.signal, vi.fn(), (error) => errors.push(error));
    await vi.waitFor(() => expect(signals).toHaveLength(1), PATIENCE);
    turn(true);
    vi.advanceTimersByTime(OUT_OF_SIGHT);
    expect(signals[0]?.aborted).toBe(true);
    turn(false);
    await vi.waitFor(() => expect(signals).toHaveLength(2), PATIENCE);
    expect(signals[1]?.aborted).toBe(false);
    control.abort();
    await over;
    expect(errors).toEqual([]);
  });
});

describe("what is done while the page is in sight", () => {
  it("isn't begun before it is", async () => {
    turn(true);
    vi.advanceTimersByTime(OUT_OF_SIGHT);
    const work = vi.fn(() => Promise.resolve());
    const over = whileInSight(control.signal, work);
    await Promise.resolve();
    expect(work).not.toHaveBeenCalled();
    turn(false);
    await over;
    expect(work).toHaveBeenCalledTimes(1);
  });

  it("ends out of sight too", async () => {
    turn(true);
    vi.advanceTimersByTime(OUT_OF_SIGHT);
    const work = vi.fn(() => Promise.resolve());
    const over = whileInSight(control.signal, work);
    control.abort();
    await over;
    expect(work).not.toHaveBeenCalled();
  });
});
