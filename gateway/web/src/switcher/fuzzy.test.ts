import { describe, expect, it } from "vitest";
import { score } from "./fuzzy";

function best(query: string, texts: readonly string[]): string | undefined {
  const scored = texts.map((text) => ({ text, points: score(query, text) }));
  return scored
    .filter(({ points }) => points !== null)
    .sort((a, b) => (b.points ?? 0) - (a.points ?? 0))[0]?.text;
}

const TEXTS = [
  "New chat",
  "Models",
  "Activity",
  "Keys",
  "Sign out",
  "smollm-135m-instruct",
  "Chat",
];

describe("a score", () => {
  it.each([
    ["chat", "Chat"],
    ["new", "New chat"],
    ["nc", "New chat"],
    ["so", "Sign out"],
    ["smolinst", "smollm-135m-instruct"],
    ["135 m", "smollm-135m-instruct"],
    ["MOD", "Models"],
    ["áct", "Activity"],
  ])("of %j is best for %s", (query, text) => {
    expect(best(query, TEXTS)).toBe(text);
  });

  it("is none where letters are missing, or in another order", () => {
    expect(score("xyz", "Models")).toBeNull();
    expect(score("sledom", "Models")).toBeNull();
  });

  it("of nothing is for all", () => {
    for (const text of TEXTS) expect(score("", text)).not.toBeNull();
  });
});
