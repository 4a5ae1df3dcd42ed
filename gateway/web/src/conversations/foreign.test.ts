import { describe, expect, it } from "vitest";
import { parse } from "./parse";
import { PIXEL, badness, said } from "./testing/files";

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
