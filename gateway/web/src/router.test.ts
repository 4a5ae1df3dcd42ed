import { describe, expect, it } from "vitest";
import { href, parse } from "./router";

describe("routes", () => {
  it.each(["", "#", "#/", "#/nowhere", "#key=x"])("%j is the chat", (text) =>
    expect(parse(text)).toEqual({ screen: "chat", rest: [] }),
  );

  it("reads what href writes", () => {
    const name = "org/model: a & b %";
    expect(parse(href("models", name))).toEqual({ screen: "models", rest: [name] });
  });

  it("leaves a broken escape as it is", () =>
    expect(parse("#/models/%E0%A4%A").rest).toEqual(["%E0%A4%A"]));
});
