import { act, cleanup, configure, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { CreatedKey } from "./fields";
import { KeyMade } from "./KeyMade";

configure({ asyncUtilTimeout: 30_000 }); // of a busy machine

const made = { name: "laptop", key: "llmgw_secret" } as CreatedKey;
const onClose = vi.fn();

beforeEach(() => {
  onClose.mockReset();
  // The lines for its apps don't come: the gateway is out of reach.
  vi.stubGlobal("fetch", () => Promise.reject(new Error("unreachable")));
  render(<KeyMade made={made} onClose={onClose} />);
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

const click = (name: string): Promise<void> =>
  act(() => void fireEvent.click(screen.getByRole("button", { name })));
const escape = (): Promise<void> =>
  act(() => {
    const open = document.querySelectorAll("dialog");
    fireEvent(open[open.length - 1]!, new Event("cancel", { cancelable: true }));
  });
const asks = (): boolean => screen.queryByText("Close without copying the key laptop?") !== null;

describe("a key that is shown once", () => {
  it.each([
    ["Escape", escape],
    ["the cross", () => click("Close")],
    ["Done", () => click("Done")],
  ])("isn't lost by %s: it asks once", async (_, leave) => {
    await leave();
    expect(asks()).toBe(true);
    expect(onClose).not.toHaveBeenCalled();
    await click("Go back");
    expect(asks()).toBe(false);
    expect(screen.getByText(made.key)).toBeTruthy();
    await leave();
    await click("Close without copying");
    expect(onClose).toHaveBeenCalledOnce();
  });

  it("is there again where the browser has closed it in spite of the question", async () => {
    const dialog = screen.getByRole<HTMLDialogElement>("dialog");
    await escape();
    dialog.close();
    const question = screen.getByText("Close without copying the key laptop?");
    expect(dialog.contains(question)).toBe(false); // or it couldn't be seen
    await click("Go back");
    expect(dialog.open).toBe(true);
  });

  it("closes without a question after it was copied", async () => {
    vi.stubGlobal("navigator", { clipboard: { writeText: () => Promise.resolve() } });
    await click("Copy key");
    await screen.findByRole("button", { name: "Copied" });
    await click("Done");
    expect(onClose).toHaveBeenCalledOnce();
    expect(asks()).toBe(false);
  });

  it("counts as copied where that was done by hand", async () => {
    await act(() => void fireEvent.copy(screen.getByText(made.key)));
    await escape();
    expect(onClose).toHaveBeenCalledOnce();
  });
});
