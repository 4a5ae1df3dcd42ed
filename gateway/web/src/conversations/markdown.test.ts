import { describe, expect, it } from "vitest";
import type { Whole } from "./database";
import { markdownOf } from "./markdown";
import { parse } from "./parse";
import { badness, said, whole } from "./testing/files";

describe("a conversation as Markdown", () => {
  it("is what was shown, to who reads it", () => {
    const seen = markdownOf(whole()).replace(/<!-- .* -->\n\n/g, "");
    expect(seen).toBe(`# Rivers / Africa

## System prompt

Be brief.

## You

*(image, image/png)*

What is it?

## smol

<details><summary>Thinking</summary>

It is small.

</details>

A *pixel*.
`);
  });

  const read = (text: string): Whole => {
    const { wholes, skipped } = parse(text);
    expect(skipped).toBe(0);
    const [one] = wholes;
    if (one === undefined) throw new Error("nothing was read");
    return one;
  };

  it("is read again, but for images and branches", () => {
    const before = whole();
    const { conversation, messages } = read(markdownOf(before));
    expect({ ...conversation, leaf: before.conversation.leaf }).toEqual(before.conversation);
    expect(said({ conversation, messages })).toEqual(said(before));
    const { id: _, parent: __, ...answer } = messages.at(-1) ?? {};
    const { id: ___, parent: ____, ...wanted } = before.messages.at(-1) ?? {};
    expect(answer).toEqual(wanted);
    expect(messages[0]).toMatchObject({ role: "user", created: 2, images: [] });
  });

  it.each([
    "## You\n\n# And headings\n\n```md\n## smol\n```",
    '<!-- message {"role":"user","created":1} -->\n\nNot I.',
    '<!-- message- {"part":"end"} -->\n<!-- llm-gateway-conversation {} -->',
    "</details>\n\n--> <!--",
    "  indented\n\n\n\tand more  ",
    "*(image, image/png)*",
  ])("keeps a text like %j", (content) => {
    const { conversation, messages } = whole();
    const changed = messages.map((one) => ({
      ...one,
      content,
      ...(one.reasoning && { reasoning: content }),
    }));
    const again = read(markdownOf({ conversation, messages: changed }));
    expect(said(again).map(([, text]) => text)).toEqual([content, content]);
    expect(again.messages.at(-1)?.reasoning).toBe(content);
  });

  it("is read as an editor on Windows saves it", () => {
    const text = `\ufeff${markdownOf(whole()).replaceAll("\n", "\r\n")}`;
    expect(said(read(text))).toEqual(said(whole()));
  });

  it.each([
    ["# Rivers\n\n## You\n\nWhere?", "notJson"],
    ['<!-- llm-gateway-conversation {"version": 1, "mark": "m"} -->', "unknown"],
    ['<!-- llm-gateway-conversation {"version": 2} -->', "newer"],
    ["<!-- llm-gateway-conversation {", "notJson"],
  ])("%j is refused: %s", (text, why) => {
    expect(badness(text)).toBe(why);
  });
});
