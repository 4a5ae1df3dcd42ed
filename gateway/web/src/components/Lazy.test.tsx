import {
  act,
  cleanup,
  configure,
  fireEvent,
  render,
  screen,
  waitFor,
} from "@testing-library/preact";
import type { ComponentType } from "preact";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Lazy } from "./Lazy";

configure({ asyncUtilTimeout: 30_000 }); // of a busy machine

type Module = { readonly default: ComponentType };

/** A screen whose code comes when the test says so. */
function later(text: string) {
  let come: (module: Module) => void = () => undefined;
  let fail: (reason: unknown) => void = () => undefined;
  const module = new Promise<Module>((resolve, reject) => {
    come = resolve;
    fail = reject;
  });
  return {
    load: () => module,
    comes: () =>
      act(async () => {
        come({ default: () => <p>{text}</p> });
        await module;
      }),
    fails: () =>
      act(async () => {
        fail(new Error(text));
        await module.catch(() => undefined);
      }),
  };
}

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** A screen whose code can't be had, by whatever number of tries; and what the page answers. */
function gone(page: () => Promise<Response>) {
  const load = vi.fn(() => Promise.reject<Module>(new Error("no such code")));
  const reload = vi.spyOn(location, "reload").mockImplementation(() => undefined);
  vi.stubGlobal("fetch", page);
  const { rerender } = render(<Lazy load={load} />);
  const tryAgain = async (): Promise<void> =>
    void fireEvent.click(await screen.findByRole("button", { name: "Try again" }));
  return { load, reload, tryAgain, rerender };
}

describe("a screen that is fetched", () => {
  it("is shown once it has come", async () => {
    const chat = later("chat");
    render(<Lazy load={chat.load} />);
    expect(screen.queryByText("chat")).toBeNull();
    await chat.comes();
    expect(screen.getByText("chat")).toBeTruthy();
  });

  it("isn't replaced by one that was left before its code came", async () => {
    const [chat, models] = [later("chat"), later("models")];
    const { rerender } = render(<Lazy load={chat.load} />);
    rerender(<Lazy load={models.load} />);
    await models.comes();
    await chat.comes();
    expect(screen.getByText("models")).toBeTruthy();
    expect(screen.queryByText("chat")).toBeNull();
  });

  it("isn't hidden by the failure of one that was left", async () => {
    const [chat, models] = [later("chat"), later("models")];
    const { rerender } = render(<Lazy load={chat.load} />);
    rerender(<Lazy load={models.load} />);
    await models.comes();
    await chat.fails();
    expect(screen.getByText("models")).toBeTruthy();
  });

  it("is loaded with the page anew where its code can't be had a second time", async () => {
    const { load, reload, tryAgain } = gone(() => Promise.resolve(new Response("<!doctype html>")));
    await tryAgain();
    await waitFor(() => expect(reload).toHaveBeenCalledTimes(1));
    expect(load).toHaveBeenCalledTimes(2);
  });

  it.each([
    ["nothing answers", () => Promise.reject<Response>(new TypeError("Failed to fetch"))],
    ["the page isn't there", () => Promise.resolve(new Response("", { status: 502 }))],
  ])("keeps the page where %s", async (_, page) => {
    const { load, reload, tryAgain } = gone(page);
    await tryAgain();
    await tryAgain();
    await waitFor(() => expect(load).toHaveBeenCalledTimes(3));
    await screen.findByText("no such code");
    expect(reload).not.toHaveBeenCalled();
  });

  it("keeps the page where another one's code can't be had the first time", async () => {
    const there = (): Promise<Response> => Promise.resolve(new Response("<!doctype html>"));
    const { reload, tryAgain, rerender } = gone(there);
    await screen.findByText("no such code");
    const [models, keys] = [later("models"), later("keys")];
    rerender(<Lazy load={models.load} />);
    await models.fails();
    await screen.findByText("models");
    await tryAgain();
    await waitFor(() => expect(reload).toHaveBeenCalledTimes(1));
    rerender(<Lazy load={keys.load} />);
    await keys.fails();
    await screen.findByText("keys");
    expect(reload).toHaveBeenCalledTimes(1);
  });
});
