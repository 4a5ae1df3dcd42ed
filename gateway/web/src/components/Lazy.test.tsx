import { act, cleanup, render, screen } from "@testing-library/preact";
import type { ComponentType } from "preact";
import { afterEach, describe, expect, it } from "vitest";
import { Lazy } from "./Lazy";

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

afterEach(cleanup);

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
});
