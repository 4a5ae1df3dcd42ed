import { act, cleanup, configure, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CopyButton } from "./CopyButton";

configure({ asyncUtilTimeout: 30_000 }); // of a busy machine

/** What the older way copies: the selected text of the focused field, unless a dialog bars it. */
let copied: string | null;
let allowed: boolean;

function execCommand(): boolean {
  const area = document.activeElement;
  if (!allowed || !(area instanceof HTMLTextAreaElement)) return false;
  const open = document.querySelector("dialog[open]");
  if (open !== null && !open.contains(area)) return false;
  copied = area.value;
  return true;
}

beforeEach(() => {
  copied = null;
  allowed = true;
  Object.assign(document, { execCommand });
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

async function click(): Promise<HTMLElement> {
  const button = screen.getByRole("button");
  button.focus();
  await act(async () => {
    fireEvent.click(button);
    await Promise.resolve();
  });
  return button;
}

describe("copying", () => {
  const refusing = { clipboard: { writeText: () => Promise.reject(new Error("not allowed")) } };

  it.each([
    ["is missing", {}],
    ["refuses", refusing],
  ])("goes the older way where the newer one %s, in a dialog too", async (_, navigator) => {
    vi.stubGlobal("navigator", navigator);
    const onCopied = vi.fn();
    render(
      <dialog open>
        <CopyButton text="the key" onCopied={onCopied} />
      </dialog>,
    );
    const button = await click();
    await screen.findByRole("button", { name: "Copied" });
    expect(copied).toBe("the key");
    expect(onCopied).toHaveBeenCalledWith("the key");
    expect(document.activeElement).toBe(button);
    expect(document.querySelector("textarea")).toBeNull();
  });

  it("says so where the browser lets it neither way", async () => {
    vi.stubGlobal("navigator", refusing);
    allowed = false;
    const onCopied = vi.fn();
    render(<CopyButton text="the key" onCopied={onCopied} />);
    const button = await click();
    expect((await screen.findByRole("alert")).textContent).toContain("Could not copy");
    expect(screen.queryByRole("button", { name: "Copied" })).toBeNull();
    expect(onCopied).not.toHaveBeenCalled();
    expect(document.activeElement).toBe(button);
  });
});
