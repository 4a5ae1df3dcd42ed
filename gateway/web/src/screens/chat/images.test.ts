import { describe, expect, it } from "vitest";
import { tells } from "./images";

function png(...names: readonly string[]): ArrayBuffer {
  const bytes = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
  for (const name of names)
    bytes.push(0, 0, 0, 2, ...new TextEncoder().encode(name), 1, 2, 0, 0, 0, 0);
  return new Uint8Array(bytes).buffer;
}

describe("a PNG", () => {
  it.each(["eXIf", "tEXt", "zTXt", "iTXt"])("with %s tells more than the picture", (name) => {
    expect(tells(png("IHDR", name, "IDAT", "IEND"))).toBe(true);
  });

  it("with the picture alone, or broken off, tells no more", () => {
    expect(tells(png("IHDR", "IDAT", "IEND"))).toBe(false);
    expect(tells(png("IHDR", "IDAT").slice(0, -9))).toBe(false);
    expect(tells(new ArrayBuffer(3))).toBe(false);
  });
});
