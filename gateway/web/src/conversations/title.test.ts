import { expect, it } from "vitest";
import { titleFrom } from "./title";

it.each([
  ["Where is the Nile?", "Where is the Nile?"],
  ["  \n\n# Where is\tthe   Nile?\nAnd why?", "Where is the Nile?"],
  ["```python\nprint(1)\n```", "print(1)"],
  ["> *Who* said `this`?", "Who said this?"],
  ["\n \n", ""],
  ["", ""],
  [
    "Please explain to me, as if I were five years old, how photosynthesis works",
    "Please explain to me, as if I were five years old, how…",
  ],
  ["x".repeat(100), `${"x".repeat(59)}…`],
  ["😀".repeat(61), `${"😀".repeat(59)}…`],
])("%j is titled %j", (question, title) => {
  expect(titleFrom(question)).toBe(title);
});
