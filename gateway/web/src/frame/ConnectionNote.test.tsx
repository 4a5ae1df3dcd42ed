import { cleanup, render, screen } from "@testing-library/preact";
import { afterEach, expect, it } from "vitest";
import { GatewayError } from "../gateway/errors";
import { broken } from "../gateway/live";
import { ConnectionNote } from "./ConnectionNote";

afterEach(() => {
  cleanup();
  broken.value = null;
});

function said(error: unknown): string {
  broken.value = error;
  render(<ConnectionNote />);
  return screen.getByRole("status").textContent ?? "";
}

it("says that it tries again after an answer of a proxy's", () => {
  expect(said(new GatewayError("404 Not Found", 404, null, null))).toContain("Trying again");
});

it("says what the gateway has refused, which isn't tried again", () => {
  const words = said(new GatewayError("This address is refused.", 403, "route_refused", null));
  expect(words).toContain("This address is refused.");
  expect(words).not.toContain("Trying again");
});
