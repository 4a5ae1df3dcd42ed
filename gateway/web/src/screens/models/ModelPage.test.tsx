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
  switched_off: null,
};

function lines(saved: Partial<SavedConversations>): string[] {
  const { container } = render(<Saved saved={{ ...NONE, ...saved }} />);
  return [...container.childNodes].map((one) => one.textContent ?? "");
}

afterEach(cleanup);

describe("the saved conversations of a model", () => {
  it("are counted with their size, and what they spared", () => {
    const spared = { hits: 12, tokens: 48210, seconds: 96.4 };
    expect(lines({ conversations: 4, size: 1.2 * 2 ** 30, ...spared })).toEqual([
      "4 (1.2 GiB)",
      "read back 12 times: 48,210 tokens, about 96 s spared",
    ]);
  });

  it("say nothing of what was read back before anything was", () => {
    expect(lines({ conversations: 1, size: 48 * 2 ** 20 })).toEqual(["1 (48 MiB)"]);
  });

  it("say why there are none any more", () => {
    expect(lines({ switched_off: "its llama-server cannot save" })).toEqual([
      "none",
      "Not saved any more: its llama-server cannot save",
    ]);
  });
});
