import { describe, expect, it } from "vitest";
import { EMPTY, split, type Split } from "./blocks";

const TEXT = `# Rivers

The Nile flows north,
as others do.

- one
- two

  still two

1. a

2. b

| a | b |
|---|--:|
| 1 | 2 |

\`\`\`python
def f():

    return "# no heading"
\`\`\`
> quoted
> twice

~~~
\`\`\`
~~~

See [here][1].

[1]: https://example.org
`;

/** As it is split when it comes in pieces of `size` characters. */
function grown(text: string, size: number): Split {
  let found = EMPTY;
  for (let end = 0; end < text.length + size; end += size) found = split(text.slice(0, end), found);
  return found;
}

const raws = (found: Split): readonly string[] => found.blocks.map((one) => one.raw.trim());

describe("a text", () => {
  it("is split into its blocks", () => {
    expect(split(TEXT).blocks.map((one) => one.code?.language ?? one.raw.split("\n")[0])).toEqual([
      "# Rivers",
      "The Nile flows north,",
      "- one",
      "1. a",
      "| a | b |",
      "python",
      "> quoted",
      "",
      "See [here][1].",
    ]);
    expect(split(TEXT).links).toMatchObject({ "1": { href: "https://example.org" } });
  });

  it.each([1, 2, 3, 7, 50])("that comes in pieces of %i is split alike", (size) => {
    expect(raws(grown(TEXT, size))).toEqual(raws(split(TEXT)));
    expect(grown(TEXT, size).blocks.map((one) => one.code)).toEqual(
      split(TEXT).blocks.map((one) => one.code),
    );
  });

  it("knows what cannot change any more", () => {
    const before = split("One.\n\nTwo.\n\nThr");
    const after = split("One.\n\nTwo.\n\nThree.\n\nFour", before);
    expect(before.closed).toBeGreaterThan(0);
    for (let index = 0; index < before.closed; index++)
      expect(after.blocks[index]).toBe(before.blocks[index]);
    expect(raws(after)).toEqual(["One.", "Two.", "Three.", "Four"]);
  });

  it("doesn't close a list before a line that may go on with it", () => {
    expect(raws(grown("1. a\n\n2. b", 1))).toEqual(["1. a\n\n2. b"]);
    expect(raws(grown("- a\n\n  b\n- c", 1))).toEqual(["- a\n\n  b\n- c"]);
  });

  it("is split anew where another begins otherwise", () => {
    expect(raws(split("Other", split("One.\n\nTwo.")))).toEqual(["Other"]);
    expect(split("", split("One."))).toMatchObject({ blocks: [] });
  });
});

describe("code", () => {
  it("is known as such from its first line on", () => {
    const found = split("Look:\n\n```python\nx = 1\n# y");
    expect(found.blocks.at(-1)?.code).toEqual({
      language: "python",
      text: "x = 1\n# y",
      open: true,
    });
  });

  it("is closed by a fence as long as its own, and by nothing else", () => {
    const inner = "````md\n```js\nx\n```\n";
    expect(split(inner).blocks.at(-1)?.code).toMatchObject({ language: "md", open: true });
    expect(split(`${inner}\`\`\`\`\n`).blocks.at(-1)?.code).toEqual({
      language: "md",
      text: "```js\nx\n```",
      open: false,
    });
  });

  it("doesn't read anew what is closed while an answer grows", () => {
    let found = split(`${"A paragraph.\n\n".repeat(200)}\`\`\`\n`);
    const begun = found;
    let text = found.text;
    for (let line = 0; line < 200; line++) {
      text += `line ${line}\n`;
      found = split(text, found);
    }
    expect(found.closed).toBe(begun.closed);
    expect(found.blocks.at(-1)?.code?.text).toContain("line 199\n");
  });
});

/** Deeper than marked can follow, whatever the stack of calls holds. */
const DEEP = 20_000;

describe("what is nested too deeply", () => {
  it.each([">", "> ", "- "])("in %j is one block, however it goes on", (mark) => {
    const text = `First.\n\n${mark.repeat(DEEP)}deep`;
    const found = split(text);
    expect(found.blocks.map((one) => one.raw).join("")).toContain("deep");
    const more = split(`${text}er\n\nThe end.`, found);
    expect(more.blocks.at(-1)?.raw.endsWith("deeper\n\nThe end.")).toBe(true);
    expect(more.blocks.map((one) => one.at)).toEqual(found.blocks.map((one) => one.at));
    // Another text is read as ever.
    expect(split("One.\n\nTwo.", more).blocks).toHaveLength(2);
  });
});
