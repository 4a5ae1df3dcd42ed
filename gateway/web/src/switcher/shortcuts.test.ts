import { beforeEach, expect, it } from "vitest";
import { onShortcut, panel } from "./shortcuts";

beforeEach(() => {
  panel.value = null;
  document.body.innerHTML = "<main></main><input /><dialog></dialog>";
});

function press(where: string, key: string, more: KeyboardEventInit = {}): void {
  const target = document.querySelector(where);
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more });
  target?.addEventListener("keydown", (seen) => onShortcut(seen as KeyboardEvent), { once: true });
  target?.dispatchEvent(event);
}

it.each([
  ["main", "k", { ctrlKey: true }, "switcher"],
  ["main", "K", { metaKey: true }, "switcher"],
  ["input", "k", { ctrlKey: true }, "switcher"],
  ["main", "/", {}, "switcher"],
  ["main", "?", { shiftKey: true }, "shortcuts"],
  ["main", "k", {}, null],
  ["main", "k", { ctrlKey: true, shiftKey: true }, null],
  ["input", "/", {}, null],
  ["input", "?", {}, null],
  ["main", "x", { ctrlKey: true }, null],
])("in %s, %s with %j opens %s", (where, key, more, opened) => {
  press(where, key, more);
  expect(panel.value).toBe(opened);
});

it("the same keys close it, and others change it", () => {
  press("main", "k", { ctrlKey: true });
  press("main", "?");
  expect(panel.value).toBe("shortcuts");
  press("main", "?");
  expect(panel.value).toBeNull();
});

it("nothing opens over a question that waits for its answer", () => {
  document.querySelector("dialog")?.setAttribute("open", "");
  press("main", "k", { ctrlKey: true });
  expect(panel.value).toBeNull();
});
