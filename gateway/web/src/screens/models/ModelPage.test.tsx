import { cleanup, render } from "@testing-library/preact";
import { afterEach, describe, expect, it } from "vitest";
import type { SavedConversations } from "./facts";
import { Saved } from "./ModelPage";

const NONE: SavedConversations = {
  conversations: 0,
  size: 0,
  hits: 0,
  tokens: 0,
  seconds: 0,
  slot_hits: 0,
  slot_tokens: 0,
  slot_seconds: 0,
  bytes_read: 0,
  bytes_written: 0,
  switched_off: null,
};

function lines(saved: Partial<SavedConversations>): string[] {
  const { container } = render(<Saved saved={{ ...NONE, ...saved }} />);
  return [...container.childNodes].map((one) => one.textContent ?? "");
}

afterEach(cleanup);

describe("the saved conversations of a model", () => {
  it("are counted with their size, and what they spared", () => {
    const disk = { hits: 12, tokens: 48210, seconds: 96.4, bytes_read: 2 ** 31 };
    const slot = { slot_hits: 1, slot_tokens: 1980, slot_seconds: 4, bytes_written: 3 * 2 ** 30 };
    expect(lines({ conversations: 4, size: 1.2 * 2 ** 30, ...disk, ...slot })).toEqual([
      "4 (1.2 GiB)",
      "from a slot once: 1,980 tokens, about 4.0 s spared",
      "from disk 12 times: 48,210 tokens, about 96 s spared",
      "3.0 GiB written, 2.0 GiB read",
    ]);
  });

  it("say nothing of what was read back before anything was", () => {
    expect(lines({ conversations: 1, size: 48 * 2 ** 20 })).toEqual(["1 (48 MiB)"]);
  });

  it("say on which nodes they are", () => {
    const nodes = { attic: 2, cellar: 1 };
    expect(lines({ conversations: 4, size: 48 * 2 ** 20, nodes })).toEqual([
      "4 (48 MiB)",
      "of these 2 on attic, 1 on cellar",
    ]);
  });

  it("say why there are none any more", () => {
    expect(lines({ switched_off: "its llama-server cannot save" })).toEqual([
      "none",
      "Not saved any more: its llama-server cannot save",
    ]);
  });
});
