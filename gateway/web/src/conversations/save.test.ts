import { expect, it } from "vitest";
import { fileName } from "./save";

it.each([
  ["Where is the Nile?", "Where is the Nile"],
  ["../../etc/passwd", "etc passwd"],
  ["a\u0000b\nc:d", "a b c d"],
  ["…", "Untitled"],
  ["x".repeat(200), "x".repeat(80)],
])("%j is saved as %s", (title, name) => {
  expect(fileName(title)).toBe(name);
});
