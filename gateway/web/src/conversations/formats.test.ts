import { Blob as NodeBlob } from "node:buffer";
import { beforeAll, describe, expect, it, vi } from "vitest";
import type { Whole } from "./database";
import { exported, imageFrom } from "./format";
import { markdownOf } from "./markdown";
import { parse } from "./parse";
import { BadFile } from "./parsed";
import { fileName } from "./save";
import { path } from "./tree";
import type { Conversation, Message } from "./types";

// Of happy-dom's, whose `text()` waits for a timer: 1,000 images take their time.
beforeAll(() => void vi.stubGlobal("Blob", NodeBlob));

const PIXEL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

function whole(id = "c"): Whole {
  const image = imageFrom(PIXEL);
  if (image === null) throw new Error("no image");
  const conversation: Conversation = {
    id,
    title: "Rivers / Africa",
    pinned: true,
    created: 1,
    updated: 9,
    model: "smol",
    personality: "teacher",
    settings: { system: "Be brief.", temperature: 0, json: { type: "object" }, reasoning: false },
    leaf: `${id}a2`,
    box: "https://box.example",
  };
  const messages: Message[] = [
    {
      id: `${id}q`,
      conversation: id,
      parent: null,
      role: "user",
      content: "What is it?",
      images: [image],
      created: 2,
    },
    {
      id: `${id}a1`,
      conversation: id,
      parent: `${id}q`,
      role: "assistant",
      content: "",
      images: [],
      error: { message: "It broke.", requestId: "r1" },
      created: 3,
    },
    {
      id: `${id}a2`,
      conversation: id,
      parent: `${id}q`,
      role: "assistant",
      content: "A *pixel*.",
      images: [],
      reasoning: "It is small.",
      toolCalls: [{ id: "t", name: "look", arguments: "{}" }],
      model: "smol",
      personality: "teacher",
      finish: "stop",
      stats: { firstTokenSeconds: 0.4, tokensPerSecond: 85, promptTokens: 9, cachedTokens: 0 },
      created: 4,
    },
  ];
  return { conversation, messages };
}

async function* all(...wholes: Whole[]): AsyncGenerator<Whole> {
  yield* wholes;
}

function badness(text: string): string {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof BadFile) return error.why;
    throw error;
  }
  return "none";
}

const said = ({ conversation, messages }: Whole): (readonly [string, string])[] =>
  path(new Map(messages.map((one) => [one.id, one])), conversation.leaf).map(
    (one) => [one.role, one.content] as const,
  );

describe("the file of an export", () => {
  it("holds everything, and is read again", async () => {
    const steps: number[] = [];
    const blob = await exported(all(whole("c"), whole("d")), (done) => steps.push(done));
    expect(steps).toEqual([1, 2]);
    const file = await blob.text();
    expect(JSON.parse(file)).toMatchObject({
      format: "llm-gateway-conversations",
      version: 1,
      conversations: [{ id: "c", messages: [{ id: "cq", images: [{ data: PIXEL }] }, {}, {}] }, {}],
    });
    const { wholes, skipped } = parse(file);
    expect(skipped).toBe(0);
    const [first] = wholes;
    const before = whole("c");
    expect(first?.conversation).toEqual(before.conversation);
    const bare = (one: Message): unknown => ({ ...one, images: one.images.length });
    expect(first?.messages.map(bare)).toEqual(before.messages.map(bare));
    const blobs = [first, before].map((one) => one?.messages[0]?.images[0]?.blob.arrayBuffer());
    const [now, then] = await Promise.all(blobs);
    expect(new Uint8Array(now ?? new ArrayBuffer())).toEqual(
      new Uint8Array(then ?? new ArrayBuffer()),
    );
  });

  it("of nothing is one that can be read", async () => {
    expect(badness(await (await exported(all())).text())).toBe("empty");
  });

  it.each([
    ["", "empty"],
    ["[]", "empty"],
    ["{", "notJson"],
    ["<html>", "notJson"],
    ['{"format": "llm-gateway-conversations", "version": 1, "conversations": [', "notJson"],
    ["PK\u0003\u0004", "zip"],
    ["{}", "unknown"],
    ["7", "unknown"],
    ['[{"name": "Nile"}]', "unknown"],
    ['{"format": "llm-gateway-conversations"}', "unknown"],
    ['{"format": "llm-gateway-conversations", "version": 2, "conversations": []}', "newer"],
  ])("%j is refused: %s", (text, why) => {
    expect(badness(text)).toBe(why);
  });

  it("with broken parts gives what is whole", () => {
    const message = { id: "m", parent: 7, role: "user", content: "Hello", created: 1 };
    const odd = {
      ...message,
      id: "n",
      images: [{ data: "data:text/html,x" }, { data: "https://x" }, 3],
    };
    const conversation = { id: "c", title: "t", created: 1, updated: 1, leaf: "gone" };
    const { wholes, skipped } = parse(
      JSON.stringify({
        format: "llm-gateway-conversations",
        version: 1,
        conversations: [
          { ...conversation, messages: [message, odd, { ...message, role: "robot" }, null] },
          { ...conversation, messages: [] },
          { title: "no id" },
          null,
        ],
      }),
    );
    expect(skipped).toBe(3);
    expect(wholes[0]?.messages).toMatchObject([
      { id: "m", parent: null, images: [] },
      { id: "n", images: [] },
    ]);
  });
});

describe("llama.cpp's page", () => {
  const conv = { id: "l", name: "Ownership", lastModified: 1751809805123, currNode: "a2" };
  const messages = [
    {
      id: "root",
      convId: "l",
      type: "root",
      role: "system",
      content: "",
      parent: null,
      timestamp: 1,
    },
    {
      id: "s",
      convId: "l",
      type: "system",
      role: "system",
      content: "Be concise.",
      parent: "root",
    },
    {
      id: "q",
      convId: "l",
      type: "text",
      role: "user",
      content: "Why?",
      parent: "s",
      timestamp: 1751809801000,
      extra: [
        { type: "IMAGE", name: "x.png", base64Url: PIXEL },
        { type: "TEXT", name: "x.rs", content: "fn main() {}" },
      ],
    },
    {
      id: "a1",
      type: "text",
      role: "assistant",
      content: "So.",
      parent: "q",
      timestamp: 1751809803500,
    },
    {
      id: "a2",
      type: "text",
      role: "assistant",
      content: "Because.",
      reasoningContent: "Hm.",
      model: "qwen",
      parent: "q",
      timestamp: 1751809805123,
    },
  ];
  const lines = [
    { type: "session", harness: "llama.app", ...conv },
    ...messages.map((message) => ({ type: "message", message })),
  ];

  it.each([
    ["as an array", JSON.stringify([{ conv, messages }])],
    ["as one", JSON.stringify({ conv, messages })],
    ["as lines", lines.map((one) => JSON.stringify(one)).join("\n")],
  ])("%s", (_, file) => {
    const { wholes, skipped } = parse(file);
    expect(skipped).toBe(0);
    expect(wholes).toHaveLength(1);
    expect(wholes[0]?.conversation).toMatchObject({
      id: "l",
      title: "Ownership",
      model: "qwen",
      updated: 1751809805123,
      created: 1751809801000,
      settings: { system: "Be concise." },
    });
    expect(wholes.map(said)).toEqual([
      [
        ["user", "Why?\n\nfn main() {}"],
        ["assistant", "Because."],
      ],
    ]);
    expect(wholes[0]?.messages).toMatchObject([
      { id: "q", parent: null, images: [{ mime: "image/png" }] },
      { id: "a1", parent: "q" },
      { id: "a2", parent: "q", reasoning: "Hm." },
    ]);
  });

  it("whose lines are cut in the midst is refused", () => {
    const file = lines.map((one) => JSON.stringify(one)).join("\n");
    expect(badness(file.slice(0, -20))).toBe("notJson");
  });
});

it("Open WebUI's export", () => {
  const history = {
    currentId: "a2",
    messages: {
      q: {
        id: "q",
        parentId: null,
        childrenIds: ["a1", "a2"],
        role: "user",
        content: "Why?",
        timestamp: 1751809801,
        files: [
          { type: "image", url: PIXEL },
          { type: "image", url: "/api/v1/files/7" },
        ],
      },
      a1: {
        id: "a1",
        parentId: "q",
        childrenIds: [],
        role: "assistant",
        content: "So.",
        model: "qwen",
        timestamp: 1751809803,
      },
      a2: {
        id: "a2",
        parentId: "q",
        childrenIds: [],
        role: "assistant",
        content:
          '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n&gt; Hm.\n</details>\nBecause.',
        model: "qwen",
        timestamp: 1751809805,
      },
    },
  };
  const chat = { title: "Ownership", models: ["qwen"], history, params: { system: "Be concise." } };
  const file = [
    {
      id: "o",
      title: "Ownership",
      chat,
      created_at: 1751809800,
      updated_at: 1751809805,
      pinned: true,
    },
  ];
  const { wholes } = parse(JSON.stringify(file));
  expect(wholes[0]?.conversation).toMatchObject({
    id: "o",
    title: "Ownership",
    pinned: true,
    created: 1751809800000,
    updated: 1751809805000,
    settings: { system: "Be concise." },
    leaf: "a2",
  });
  expect(wholes.map(said)).toEqual([
    [
      ["user", "Why?"],
      ["assistant", "Because."],
    ],
  ]);
  expect(wholes[0]?.messages).toMatchObject([
    { images: [{ mime: "image/png" }] },
    { content: "So." },
    { reasoning: "Hm." },
  ]);
});

it("ChatGPT's conversations.json", () => {
  const node = (id: string, parent: string | null, message: unknown): [string, unknown] => [
    id,
    { id, parent, children: [], message },
  ];
  const message = (role: string, parts: unknown[], more: object = {}): unknown => ({
    author: { role },
    create_time: 1751809801.5,
    content: { content_type: "text", parts },
    metadata: { model_slug: "gpt-4o" },
    ...more,
  });
  const mapping = Object.fromEntries([
    node("root", null, null),
    node("sys", "root", message("system", [""])),
    node("q", "sys", message("user", ["Why?", { content_type: "image_asset_pointer" }])),
    node("tool", "q", message("tool", ["result"])),
    node(
      "code",
      "tool",
      message("assistant", ["x"], { content: { content_type: "code", text: "x" } }),
    ),
    node("a", "code", message("assistant", ["Because."])),
  ]);
  const file = [
    {
      title: "Ownership",
      conversation_id: "g",
      create_time: 1751809800.25,
      update_time: 1751809805,
      current_node: "a",
      mapping,
    },
    { title: "Empty", mapping: {} },
  ];
  const { wholes, skipped } = parse(JSON.stringify(file));
  expect(skipped).toBe(1);
  expect(wholes[0]?.conversation).toMatchObject({
    id: "g",
    created: 1751809800250,
    model: "gpt-4o",
  });
  expect(wholes.map(said)).toEqual([
    [
      ["user", "Why?"],
      ["assistant", "Because."],
    ],
  ]);
});

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

it.each([
  ["Where is the Nile?", "Where is the Nile"],
  ["../../etc/passwd", "etc passwd"],
  ["a\u0000b\nc:d", "a b c d"],
  ["…", "Untitled"],
  ["x".repeat(200), "x".repeat(80)],
])("%j is saved as %s", (title, name) => {
  expect(fileName(title)).toBe(name);
});
