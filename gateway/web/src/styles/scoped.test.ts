import { readdirSync, readFileSync } from "node:fs";
import { join, sep } from "node:path";
import { describe, expect, it } from "vitest";

const SRC = join(import.meta.dirname, "..");
/** Shared on purpose: what all screens are made of. */
const SHARED = new Set(["styles", "components", "docs"]);

/** A screen, or another part of the page: whose file it is. */
function area(file: string): string {
  const [first = "", second = ""] = file.split(sep);
  return first === "screens" ? `${first}/${second}` : first;
}

function files(ending: string): [string, string][] {
  return readdirSync(SRC, { recursive: true, encoding: "utf-8" })
    .filter((name) => name.endsWith(ending))
    .map((name) => [name, readFileSync(join(SRC, name), "utf-8")]);
}

/** The classes that selectors of a style sheet begin with: what follows them is theirs. */
function begun(css: string): string[] {
  const text = css.replace(/\/\*.*?\*\//gs, "");
  return [...text.matchAll(/([^{}]+)\{/g)]
    .flatMap(([, selectors = ""]) => selectors.split(","))
    .map((one) => /^\.([\w-]+)/.exec(one.trim())?.[1])
    .filter((one) => one !== undefined);
}

describe("styles", () => {
  it("of a screen are for that screen alone, as all stay loaded", () => {
    const owners = new Map<string, Set<string>>();
    for (const [file, css] of files(".css")) {
      if (SHARED.has(area(file))) continue;
      for (const name of begun(css)) {
        owners.set(name, (owners.get(name) ?? new Set()).add(area(file)));
      }
    }
    expect(owners.size).toBeGreaterThan(50);
    const twice = [...owners].filter(([, areas]) => areas.size > 1).map(([name]) => name);
    expect(twice).toEqual([]);
  });
});
