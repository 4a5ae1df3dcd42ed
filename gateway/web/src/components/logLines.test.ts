import { describe, expect, it } from "vitest";
import { levelOf, lineAt, LogBuffer, MOST, pieces, rowsOf, topsOf } from "./logLines";

function filled(...texts: string[]): LogBuffer {
  const buffer = new LogBuffer();
  buffer.add(texts);
  return buffer;
}

describe("levels", () => {
  it.each([
    ["2026-11-26 18:58:03,935 WARNING gateway.logs: left out", "warning"],
    ["2026-11-26 18:58:03,935 CRITICAL gateway: oh", "error"],
    ["0.00.008.651 E srv  load_model: failed", "error"],
    ["0.00.008.651 I srv  init", "info"],
    ["--- start 1 of m ---", "info"],
    ['  File "a.py", line 3, in b', "error"],
    ["ValueError: no", "error"],
  ])("%s", (text, level) => expect(levelOf(text, "error")).toBe(level));
});

describe("the lines that are kept", () => {
  it("are the newest ten thousand", () => {
    const buffer = new LogBuffer();
    for (let batch = 0; batch < 25; batch += 1)
      buffer.add(Array.from({ length: 500 }, (_, index) => `line ${500 * batch + index}`));
    const lines = buffer.matching("", "debug");
    expect(lines.length).toBe(MOST);
    expect(lines.at(-1)?.text).toBe("line 12499");
    expect(lines[0]?.number).toBe(12_500 - MOST + 1);
    expect(buffer.total).toBe(12_500);
  });

  it("are searched without regard to capitals, and by level", () => {
    const buffer = filled(
      "2026-11-26 18:58:03,935 INFO gateway.access: GET /Models 200",
      "2026-11-26 18:58:04,100 ERROR gateway.tasks: crashed",
      "  at models",
    );
    const texts = (search: string, level: "debug" | "error"): number[] =>
      buffer.matching(search, level).map((one) => one.number);
    expect(texts("models", "debug")).toEqual([1, 3]);
    expect(texts("", "error")).toEqual([2, 3]);
    expect(texts("nothing such", "debug")).toEqual([]);
  });

  it("lose what a terminal would take for colours", () => {
    expect(filled("\u001b[31mred\u001b[0m\ta\u0007").matching("", "debug")[0]?.text).toBe(
      "red    a",
    );
  });

  it("stay as they were for who has paused", () => {
    const buffer = filled("a");
    const before = buffer.matching("", "debug");
    buffer.add(["b"]);
    expect(before.map((one) => one.text)).toEqual(["a"]);
  });
});

describe("what is found in a line", () => {
  it("alternates with what is between", () => {
    expect(pieces("Key and key", "key")).toEqual(["", "Key", " and ", "key", ""]);
    expect(pieces("nothing", "x")).toEqual(["nothing"]);
    expect(pieces("all", "")).toEqual(["all"]);
    expect(pieces("İİ key", "key")).toEqual(["İİ key"]);
  });
});

describe("the layout", () => {
  it("takes a row for each line, or as many as it wraps into", () => {
    const lines = filled("", "x".repeat(10), "x".repeat(11), "ß".repeat(6)).matching("", "debug");
    expect([...topsOf(lines, null)]).toEqual([0, 1, 2, 3, 4]);
    expect([...topsOf(lines, 10)]).toEqual([0, 1, 2, 4, 6]);
    expect(rowsOf("xyz", 0)).toBe(3);
  });

  it("finds the line of a row", () => {
    const tops = Int32Array.from([0, 1, 2, 4, 6]);
    expect([0, 1, 2, 3, 4, 5, 6, 99].map((row) => lineAt(tops, row))).toEqual([
      0, 1, 2, 2, 3, 3, 3, 3,
    ]);
    expect(lineAt(Int32Array.from([0]), 5)).toBe(0);
  });
});
