import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";

const SRC = join(import.meta.dirname, "..");
/** Between tags, in what is shown or read out of an element, and in what pops up. */
const WORDS = [
  />[^<>{}=;()&|]*[A-Za-z]{2,}[^<>{}=;()&|]*<\//g,
  /\s(?:alt|aria-label|aria-description|hint|label|placeholder|text|title)="[^"]*[A-Za-z]{2,} [^"]*"/g,
  /\btoast\(\s*["`]/g,
];

function wordsIn(code: string): string[] {
  const plain = code.replace(/\/\*.*?\*\/|^\s*\/\/.*$/gms, "");
  return WORDS.flatMap((pattern) => plain.match(pattern) ?? []);
}

it("what people read stands in the files of a language alone", () => {
  const files = readdirSync(SRC, { recursive: true, encoding: "utf-8" }).filter(
    (name) => name.endsWith(".tsx") && !name.includes(".test."),
  );
  expect(files.length).toBeGreaterThan(50);
  const found = files.flatMap((name) =>
    wordsIn(readFileSync(join(SRC, name), "utf-8")).map((words) => `${name}: ${words}`),
  );
  expect(found).toEqual([]);
});

it.each([
  "<p>Not here</p>",
  "<h2>\n  Models\n</h2>",
  '<Button label="Say it" />',
  'toast("Done.")',
])("%s would be found", (code) => expect(wordsIn(code)).toHaveLength(1));
