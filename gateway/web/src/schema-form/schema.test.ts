import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { grouped, groupOf, GROUPS } from "../screens/models/groups";
import {
  closedPaths,
  fieldsOf,
  kindOf,
  resolved,
  type Schema,
  textOf,
  unknownKeys,
  valueOf,
  wrongWith,
} from "./schema";

/** The gateway's own: a key that is added there must find its place here. */
const root = JSON.parse(readFileSync("../schemas/models.json", "utf-8")) as Schema;
const entry = resolved({ $ref: "#/$defs/Entry" }, root);
const fields = fieldsOf(entry, root);
const field = (path: string) => {
  const found = fields.find((one) => one.path.join(".") === path);
  if (!found) throw new Error(`no field ${path}`);
  return found;
};

describe("the schema of models.json", () => {
  it.each([
    ["params.model", "text"],
    ["params.ctxSize", "number"],
    ["params.mlock", "flag"],
    ["params.keepPrompt", "mixed"],
    ["params.numa", "mixed"],
    ["params.reversePrompt", "lines"],
    ["params.logitBias", "json"],
    ["template", "choice"],
    ["aliases", "lines"],
    ["ttl", "quantity"],
    ["memory", "quantity"],
    ["env", "map"],
    ["setParams", "map"],
    ["key", "text"],
    ["pinned", "flag"],
    ["meta.displayName", "text"],
    ["parallel", "number"],
  ])("asks for %s as %s", (path, kind) => {
    expect(field(path).kind.kind).toBe(kind);
  });

  it("has a control of its own for every key but free JSON", () => {
    const free = fields.filter((one) => one.kind.kind === "json").map((one) => one.path.join("."));
    expect(free).toEqual(["params.logitBias"]);
  });

  it("says what may be left open, what is secret, and how large it may be", () => {
    expect(field("params.mlock").kind).toEqual({ kind: "flag", optional: true });
    expect(field("pinned").kind).toEqual({ kind: "flag", optional: false });
    expect(field("key").kind).toMatchObject({ secret: true });
    expect(field("parallel").kind).toMatchObject({ whole: true, minimum: 1, maximum: 256 });
    expect(field("parallel").fallback).toBe(1);
  });

  it("divides a description into what it is for and what is allowed", () => {
    const found = field("params.topP");
    expect(found.help).toBe(
      "Choose among the likeliest tokens that together have this probability.",
    );
    expect(found.allowed).toBe("a number from 0 to 1.");
  });

  it("knows reasoning of a personality as words, numbers, yes and no", () => {
    const personality = resolved({ $ref: "#/$defs/Personality" }, root);
    const found = personality.properties?.["reasoning"];
    if (typeof found !== "object") throw new Error("no reasoning");
    expect(kindOf(found, root)).toEqual({
      kind: "mixed",
      words: ["off", "low", "medium", "high"],
      flag: true,
      number: true,
    });
  });

  it("closes what makes no sense beside url, and without it", () => {
    const here = closedPaths({ params: { model: "m.gguf" } }, entry).map((one) => one.join("."));
    expect(here).toEqual(["key", "modelName", "caFile", "timeout"]);
    const elsewhere = closedPaths({ url: "http://box" }, entry).map((one) => one.join("."));
    expect(elsewhere).toContain("params.model");
    expect(elsewhere).toContain("env");
    expect(elsewhere).not.toContain("params.temperature");
  });
});

describe("groups", () => {
  it("hold every key once, personalities apart", () => {
    const all = [...grouped(fields).values()].flat();
    expect(new Set(all).size).toBe(all.length);
    expect(all.length).toBe(fields.length - 1);
    expect(groupOf(field("personalities"))).toBeNull();
  });

  it("put what has no effect last, and what nobody sorted under advanced", () => {
    const names = (group: (typeof GROUPS)[number]) =>
      grouped(fields)
        .get(group)
        ?.map((one) => one.path.join("."));
    expect(names("lifetime")).toEqual(["preload", "pinned", "ttl"]);
    expect(names("idle")).toContain("params.interactive");
    expect(names("advanced")).toContain("extraArgs");
  });
});

it("finds keys that the schema doesn't know", () => {
  const value = { params: { ctx_size: 1, ctxSize: 2 }, odd: true, env: { ANY: "x" } };
  expect(unknownKeys(value, entry, root)).toEqual([["params", "ctx_size"], ["odd"]]);
});

describe("what is written into a field", () => {
  it.each([
    ["params.ctxSize", "4096", 4096],
    ["params.ctxSize", "", undefined],
    ["params.ctxSize", "many", "many"],
    ["ttl", "10m", "10m"],
    ["ttl", "600", 600],
    ["params.keepPrompt", "true", true],
    ["params.keepPrompt", "24", 24],
    ["params.numa", "isolate", "isolate"],
    ["aliases", "a\n\n b \n", ["a", "b"]],
    ["description", "", undefined],
    ["description", " a text", " a text"],
  ])("%s: %j is %j", (path, text, value) => {
    expect(valueOf(text, field(path).kind)).toEqual(value);
  });

  it.each([
    ["params.ctxSize", 4096],
    ["ttl", "10m"],
    ["params.keepPrompt", false],
    ["aliases", ["a", "b"]],
    ["description", "a\ntext"],
  ])("%s: %j survives being shown", (path, value) => {
    const { kind } = field(path);
    expect(valueOf(textOf(value, kind), kind)).toEqual(value);
  });

  it.each([
    ["params.ctxSize", "many", { what: "whole" }],
    ["params.ctxSize", 1.5, { what: "whole" }],
    ["params.ctxSize", -1, { what: "minimum", bound: 0 }],
    ["params.topP", 1.5, { what: "maximum", bound: 1 }],
    ["ttl", "soon", { what: "pattern" }],
    ["ttl", "10m", null],
    ["key", "***", null],
  ])("%s: of %j it says %j", (path, value, wrong) => {
    expect(wrongWith(value, field(path).kind)).toEqual(wrong);
  });
});
