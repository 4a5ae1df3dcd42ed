import { describe, expect, it } from "vitest";
import { fold, marked, search, snippetOf, type Text } from "./search";
import type { Conversation } from "./types";

function conversation(id: string, title: string): Conversation {
  return {
    id,
    title,
    pinned: false,
    created: 1,
    updated: 1,
    model: null,
    personality: null,
    settings: {},
    leaf: null,
    box: "",
  };
}

const text = (said: string): Text => ({ said, folded: fold(said) });

describe("folding", () => {
  it.each([
    ["Où est LE Café?", "ou est le cafe?"],
    ["ŽLUŤOUČKÝ", "zlutoucky"],
    ["Straße", "straße"],
    ["İstanbul", "istanbul"],
    ["한국어", "한국어"],
    ["日本語 😀", "日本語 😀"],
  ])("%s is %s, and as long", (before, after) => {
    expect(fold(before)).toBe(after);
    expect(fold(before)).toHaveLength(before.length);
  });
});

describe("a search", () => {
  const list = [
    conversation("a", "Rivers of Africa"),
    conversation("b", "Cooking"),
    conversation("c", "Nile"),
  ];
  const texts = new Map([
    ["a", text("The Nile is long.")],
    [
      "b",
      text(
        `${"Bake it. ".repeat(20)}A recipe from the Nilé, from Africa. ${"Eat it. ".repeat(20)}`,
      ),
    ],
  ]);
  const ids = (query: string): string[] =>
    search(query, list, texts).map((one) => one.conversation.id);

  it("finds every word, in title or text, titles first", () => {
    expect(ids("nile")).toEqual(["c", "a", "b"]);
    expect(ids("NILE africa")).toEqual(["a", "b"]);
    expect(ids("nile nowhere")).toEqual([]);
    expect(ids(" ")).toEqual(["a", "b", "c"]);
    expect(ids("(.*")).toEqual([]);
  });

  it("shows where", () => {
    const hits = search("nile africa", list, texts);
    expect(hits[0]?.snippet).toEqual([
      { text: "The ", match: false },
      { text: "Nile", match: true },
      { text: " is long.", match: false },
    ]);
    const pieces = hits[1]?.snippet ?? [];
    expect(pieces.filter((one) => one.match).map((one) => one.text)).toEqual(["Nilé", "Africa"]);
    expect(pieces[0]).toEqual({ text: "…", match: false });
    expect(pieces.at(-1)).toEqual({ text: "…", match: false });
  });

  it("marks the longest of words that begin alike, and leaves nothing out", () => {
    const pieces = marked("Nilea Nile", ["nile", "nilea"]);
    expect(pieces.map((one) => one.text)).toEqual(["Nilea", " ", "Nile"]);
    expect(snippetOf(text("x"), ["x"])).toEqual([{ text: "x", match: true }]);
  });

  it("finds one, or all, of 1,000 conversations", () => {
    const words = "the quick brown fox jumps over the lazy dog and the nile is a river ";
    const many = Array.from({ length: 1000 }, (_, n) => conversation(`${n}`, `Conversation ${n}`));
    const long = new Map(many.map(({ id }) => [id, text(words.repeat(150) + id)])); // 10 KB each
    expect(search("river 999", many, long)).toHaveLength(1);
    expect(search("nile", many, long)).toHaveLength(1000);
  });
});
