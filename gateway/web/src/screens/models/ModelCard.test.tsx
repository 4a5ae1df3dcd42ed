import { cleanup, render, screen } from "@testing-library/preact";
import { afterEach, describe, expect, it } from "vitest";
import { models as listed } from "../../gateway/live";
import { Actions } from "./actions";
import type { LiveModel } from "./facts";
import { ModelCard, Numbers, Trouble } from "./ModelCard";

const IDLE: LiveModel = {
  name: "m",
  state: "stopped",
  state_seconds: 1,
  progress: null,
  in_flight: 0,
  queued: 0,
  slots: 4,
  load_seconds: null,
  starts: 0,
  deaths: 0,
  last_error: null,
  retry_in: null,
  memory: 3 * 2 ** 30,
  memory_held: null,
  devices: [],
  degraded: null,
  usage: {
    requests: 0,
    prompt_tokens: 0,
    cached_tokens: 0,
    completion_tokens: 0,
    tokens_per_second: null,
  },
};

function numbers(model: LiveModel): Record<string, string> {
  const { container } = render(<Numbers model={model} />);
  return Object.fromEntries(
    [...container.querySelectorAll("dl > div")].map((pair) => [
      pair.querySelector("dt")?.textContent ?? "",
      pair.querySelector("dd")?.textContent ?? "",
    ]),
  );
}

afterEach(() => {
  cleanup();
  listed.value = null;
});

describe("a card", () => {
  it("tells what a model at work holds, does and waits for", () => {
    const usage = { ...IDLE.usage, requests: 12, tokens_per_second: 41.6 };
    const busy = {
      nodes: ["attic", "here"],
      in_flight: 4,
      queued: 2,
      memory_held: 2.5 * 2 ** 30,
      unload_in: 300,
    };
    expect(numbers({ ...IDLE, ...busy, state: "ready", usage })).toEqual({
      Memory: "2.5 GiB",
      "Runs on": "attic, this machine",
      "Requests now": "4 of at most 4",
      Waiting: "2",
      Speed: "42 tokens/s",
      Unloads: "in 5 min",
      "So far": "12 requests",
    });
  });

  it("of a model that was never loaded tells what it would take", () => {
    expect(numbers(IDLE)).toEqual({ Memory: "about 3.0 GiB" });
  });

  it("of one that failed tells why, when it is tried again, and where its log is", () => {
    const said = "it ran out of memory. Its last lines: CUDA error";
    const failed = { last_error: said, start_failed: true, retry_in: 30 };
    render(<Trouble model={{ ...IDLE, ...failed, state: "backoff" }} />);
    expect(screen.getByText("it ran out of memory.")).toBeTruthy();
    expect(screen.getByText("Tries again in 30 s.")).toBeTruthy();
    expect(screen.getByRole("link").getAttribute("href")).toBe("#/models/m/log");
  });

  it.each([
    [{ state: "stopped" }, "Load"],
    [{ state: "starting" }, "Stop loading"],
    [{ state: "ready" }, "Unload"],
    [{ state: "failed" }, "Load again"],
  ])("%j: offers %s", (more, words) => {
    render(<Actions model={{ ...IDLE, ...more }} />);
    expect(screen.getByRole("button").textContent).toBe(words);
  });

  it("of a model elsewhere says so before its facts are there, and loads nothing", () => {
    listed.value = [{ id: "m", status: { value: "unloaded" }, aliases: [], remote: true }];
    const servers = [{ url: "http://a", up: false, in_flight: 0, error: null, retry_in: null }];
    render(<ModelCard model={{ ...IDLE, servers }} />);
    expect(screen.getByText("elsewhere")).toBeTruthy();
    expect(screen.getByRole("button").textContent).toBe("Connect");
    expect(screen.queryByText("not loaded")).toBeNull();
  });
});
