import { describe, expect, it } from "vitest";
import { exported } from "./format";
import { parse } from "./parse";
import { PIXEL, all, badness, whole, withBlobsOfNode } from "./testing/files";
import type { Message } from "./types";

withBlobsOfNode();

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
