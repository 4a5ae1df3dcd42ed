import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { actions } from "../texts/en/common";
import { Boundary } from "./Boundary";

function Broken({ by }: { readonly by: Error | null }) {
  if (by !== null) throw by;
  return <p>whole</p>;
}

function At({ place, by }: { readonly place: string; readonly by: Error | null }) {
  return (
    <>
      <nav>menu</nav>
      <Boundary place={place}>
        <Broken by={by} />
      </Boundary>
    </>
  );
}

beforeEach(() => void vi.spyOn(console, "error").mockImplementation(() => undefined));
afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

describe("a screen that can't be drawn", () => {
  const error = new RangeError("too deep");

  it("says why in its place, beside the frame, and can be tried again", () => {
    const { rerender } = render(<At place="#/chat/a" by={error} />);
    expect(screen.getByRole("alert").textContent).toContain("too deep");
    expect(screen.getByText("menu")).toBeTruthy();
    expect(console.error).toHaveBeenCalledWith(error);
    rerender(<At place="#/chat/a" by={null} />);
    expect(screen.queryByText("whole")).toBeNull();
    fireEvent.click(screen.getByRole("button", { name: actions.tryAgain }));
    expect(screen.getByText("whole")).toBeTruthy();
  });

  it("gives way to where the person goes next", () => {
    const { rerender } = render(<At place="#/chat/a" by={error} />);
    rerender(<At place="#/chat/b" by={null} />);
    expect(screen.getByText("whole")).toBeTruthy();
    expect(screen.queryByRole("alert")).toBeNull();
  });
});
