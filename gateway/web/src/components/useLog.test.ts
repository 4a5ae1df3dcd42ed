import { act, cleanup, configure, renderHook, waitFor } from "@testing-library/preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { GatewayError } from "../gateway/errors";
import type { LogSource } from "../gateway/logs";
import { inSight } from "../gateway/sight";
import { useLog } from "./useLog";

configure({ asyncUtilTimeout: 30_000 }); // of a busy machine

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => {
  cleanup();
  inSight.value = true;
  vi.useRealTimers();
});

describe("a log", () => {
  it.each([
    ["a proxy's 404", new GatewayError("404 Not Found", 404, null, null), false],
    ["too many requests", new GatewayError("Slower.", 429, "rate_limit_exceeded", null), false],
    ["the gateway's own 404", new GatewayError("No such model.", 404, "not_found", null), true],
  ])("after %s", async (_, reason, final) => {
    const ask = vi.fn();
    const source: LogSource = async function* () {
      ask();
      yield { lines: [] };
      throw reason;
    };
    const { result } = renderHook(() => useLog(source, 0));
    await waitFor(() => expect(result.current.error.value).toEqual({ reason, final }));
    await act(async () => void (await vi.advanceTimersByTimeAsync(60_000)));
    if (final) expect(ask).toHaveBeenCalledTimes(1);
    else expect(ask.mock.calls.length).toBeGreaterThan(1);
  });

  it("isn't read where nobody sees it, and is again afterwards", async () => {
    const signals: AbortSignal[] = [];
    const source: LogSource = async function* (signal) {
      signals.push(signal);
      yield { lines: [], anew: true };
      await new Promise((_resolve, reject) =>
        signal.addEventListener("abort", () => reject(new Error("aborted"))),
      );
    };
    const { result } = renderHook(() => useLog(source, 0));
    await waitFor(() => expect(result.current.open.value).toBe(true));
    await act(() => void (inSight.value = false));
    await waitFor(() => expect(result.current.open.value).toBe(false));
    expect(signals.map((one) => one.aborted)).toEqual([true]);
    await act(() => void (inSight.value = true));
    await waitFor(() => expect(result.current.open.value).toBe(true));
    expect(signals.map((one) => one.aborted)).toEqual([true, false]);
    expect(result.current.error.value).toBeNull();
  });
});
