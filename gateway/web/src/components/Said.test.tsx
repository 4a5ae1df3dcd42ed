import { render } from "preact";
import { expect, it } from "vitest";
import { Said } from "./Said";

function shown(message: string): HTMLElement {
  const place = document.createElement("div");
  render(<Said message={message} />, place);
  return place;
}

it("folds the log that a message ends with, a line of it to a line", () => {
  const place = shown("the model is gone. Its last lines: E one | E two");
  expect(place.querySelector("p")?.textContent).toBe("the model is gone.");
  expect(place.querySelector("details")?.open).toBe(false);
  expect(place.querySelector("pre")?.textContent).toBe("E one\nE two");
});

it("offers nothing to unfold where there is no log", () => {
  const place = shown("the model is gone.");
  expect(place.textContent).toBe("the model is gone.");
  expect(place.querySelector("details")).toBeNull();
});

it("shows what stands between backquotes as code", () => {
  const place = shown("the model's `binary` isn't there.");
  expect(place.querySelector("p")?.innerHTML).toBe("the model's <code>binary</code> isn't there.");
});
