import { describe, expect, it } from "vitest";
import type { Conversation, Message } from "../../conversations/types";
import { bodyOf, canGoOn } from "./body";

const image = { id: "i", mime: "image/png", blob: new Blob() };

function said(role: Message["role"], content: string, more: Partial<Message> = {}): Message {
  return {
    id: content,
    conversation: "c",
    parent: null,
    role,
    content,
    images: [],
    created: 0,
    ...more,
  };
}

function body(path: readonly Message[], more: Partial<Parameters<typeof bodyOf>[0]> = {}) {
  return bodyOf({
    conversation: { personality: null, settings: {} },
    model: "smol",
    personalities: false,
    path,
    images: new Map([["i", "data:image/png;base64,AA"]]),
    ...more,
  });
}

describe("a request", () => {
  it("asks for a stream with its progress and what it took", () => {
    expect(body([said("user", "Hi")])).toEqual({
      model: "smol",
      messages: [{ role: "user", content: "Hi" }],
      stream: true,
      return_progress: true,
      stream_options: { include_usage: true },
    });
  });

  it("names the personality, or none of those there are", () => {
    const conversation = { personality: "pirate", settings: {} };
    expect(body([], { conversation })["personality"]).toBe("pirate");
    expect(body([], { personalities: true })["personality"]).toBe("none");
    expect(body([])).not.toHaveProperty("personality");
  });

  it("has the system text first, and the settings", () => {
    const settings = { system: "Be brief.", temperature: 0, json: true } as const;
    const found = body([said("user", "Hi")], { conversation: { personality: null, settings } });
    expect(found).toMatchObject({
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "Hi" },
      ],
      temperature: 0,
      response_format: { type: "json_object" },
    });
  });

  it("carries pictures as data:, and only those there are", () => {
    const { messages } = body([
      said("user", "Look", { images: [image, { ...image, id: "lost" }] }),
    ]);
    expect(messages).toEqual([
      {
        role: "user",
        content: [
          { type: "text", text: "Look" },
          { type: "image_url", image_url: { url: "data:image/png;base64,AA" } },
        ],
      },
    ]);
  });

  it("leaves out answers of which nothing came, and thoughts", () => {
    const path = [
      said("user", "Hi"),
      said("assistant", "", { finish: "stopped" }),
      said("user", "Again"),
      said("assistant", "Yes", { reasoning: "Hm" }),
    ];
    expect(body(path)["messages"]).toEqual([
      { role: "user", content: "Hi" },
      { role: "user", content: "Again" },
      { role: "assistant", content: "Yes" },
    ]);
  });

  it("goes on behind what has come, without thinking first", () => {
    expect(body([said("user", "Count")], { begun: "One, tw" })).toMatchObject({
      messages: [
        { role: "user", content: "Count" },
        { role: "assistant", content: "One, tw" },
      ],
      chat_template_kwargs: { enable_thinking: false },
    });
  });
});

it.each<[string, Conversation["settings"], boolean, boolean]>([
  ["One, tw", {}, false, true],
  [" ", {}, false, false],
  ['{"a":', { json: true }, false, false],
  ["One, tw", {}, true, false],
])("%j with %j, remote %j, can be gone on with: %j", (content, settings, remote, can) => {
  expect(canGoOn(content, settings, remote)).toBe(can);
});
