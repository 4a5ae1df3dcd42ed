import { expect, it } from "vitest";
import { counted, plural } from "./plural";

it("is one only for one", () => {
  expect(counted(0, "request", "requests")).toBe("0 requests");
  expect(counted(1, "request", "requests")).toBe("1 request");
  expect(counted(2000, "request", "requests")).toBe("2,000 requests");
  expect(plural(21, "key", "keys")).toBe("keys");
});
