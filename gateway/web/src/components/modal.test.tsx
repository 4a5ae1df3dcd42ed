import { act, cleanup, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it } from "vitest";
import { addBox, keyRefused, removeBox, selectBox, useKey } from "../gateway/connection";
import { end, role } from "../gateway/live";
import { Dialog } from "./Dialog";

const BOX = "http://box.test";

beforeEach(() => {
  addBox({ address: BOX, name: "box" });
  selectBox(BOX);
  useKey("a key");
  role.value = "admin";
});

afterEach(() => {
  cleanup();
  end();
  keyRefused.value = null;
  removeBox(BOX);
});

function show(): HTMLDialogElement {
  render(
    <Dialog title="Anything" onClose={() => undefined}>
      <input aria-label="Words" />
    </Dialog>,
  );
  return screen.getByRole<HTMLDialogElement>("dialog", { hidden: true });
}

it("doesn't bar the way to the question for another key, and is there again afterwards", async () => {
  const dialog = show();
  expect(dialog.open).toBe(true);
  screen.getByLabelText<HTMLInputElement>("Words").value = "typed";
  await act(() => void (keyRefused.value = "a key"));
  expect(dialog.open).toBe(false);
  await act(() => useKey("another key"));
  expect(dialog.open).toBe(true);
  expect(screen.getByLabelText<HTMLInputElement>("Words").value).toBe("typed");
});

it("isn't opened over that question", async () => {
  keyRefused.value = "a key";
  const dialog = show();
  expect(dialog.open).toBe(false);
  await act(() => useKey("another key"));
  expect(dialog.open).toBe(true);
});
