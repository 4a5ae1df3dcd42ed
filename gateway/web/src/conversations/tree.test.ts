import { describe, expect, it } from "vitest";
import {
  add,
  below,
  children,
  editAndBranch,
  isOnPath,
  leafBelow,
  leafOf,
  path,
  remove,
  siblings,
} from "./tree";
import { newId, type Message, type Messages } from "./types";

function message(id: string, parent: string | null, created: number): Message {
  const role = id.startsWith("q") ? "user" : "assistant";
  return { id, conversation: "c", parent, role, content: id, images: [], created };
}

function tree(...all: readonly Message[]): Messages {
  return new Map(all.map((one) => [one.id, one]));
}

/*
 * q1 ─ a1 ─ q2 ─ a2
 *    └ a1b ─ q3
 */
const TREE = tree(
  message("q1", null, 1),
  message("a1", "q1", 2),
  message("q2", "a1", 3),
  message("a2", "q2", 4),
  message("a1b", "q1", 5),
  message("q3", "a1b", 6),
);

const ids = (messages: readonly Message[]): string[] => messages.map((one) => one.id);

describe("a path", () => {
  it("leads from the first question to the leaf", () => {
    expect(ids(path(TREE, "a2"))).toEqual(["q1", "a1", "q2", "a2"]);
    expect(ids(path(TREE, "q3"))).toEqual(["q1", "a1b", "q3"]);
    expect(path(TREE, null)).toEqual([]);
    expect(path(TREE, "unknown")).toEqual([]);
  });

  it("ends where a message was lost, and in a circle", () => {
    expect(ids(path(tree(message("a1", "lost", 2), message("q2", "a1", 3)), "q2"))).toEqual([
      "a1",
      "q2",
    ]);
    expect(ids(path(tree(message("q1", "a1", 1), message("a1", "q1", 2)), "a1"))).toEqual([
      "q1",
      "a1",
    ]);
  });
});

describe("branches", () => {
  it("are siblings, oldest first", () => {
    expect(siblings(TREE, "a1b")).toEqual({ ids: ["a1", "a1b"], index: 1 });
    expect(siblings(TREE, "q1")).toEqual({ ids: ["q1"], index: 0 });
    expect(siblings(TREE, "unknown")).toEqual({ ids: [], index: -1 });
    expect(ids(children(TREE, null))).toEqual(["q1"]);
  });

  it("of what lost its parent are roots", () => {
    const lost = add(TREE, message("q9", "lost", 9));
    expect(ids(children(lost, null))).toEqual(["q1", "q9"]);
    expect(siblings(lost, "q9")).toEqual({ ids: ["q1", "q9"], index: 1 });
  });

  it("are followed to where they were written last", () => {
    expect(leafBelow(TREE, "q1")).toBe("q3");
    expect(leafBelow(TREE, "a1")).toBe("a2");
    expect(leafBelow(TREE, "a2")).toBe("a2");
  });

  it("have a leaf even if the one that was kept is gone", () => {
    expect(leafOf(TREE, "a2")).toBe("a2");
    expect(leafOf(TREE, "gone")).toBe("q3");
    expect(leafOf(tree(), null)).toBeNull();
  });

  it("are known of the path they are on", () => {
    expect(isOnPath(TREE, "a1", "a2")).toBe(true);
    expect(isOnPath(TREE, "a1", "q3")).toBe(false);
  });
});

describe("a change", () => {
  it("leaves the tree before it alone", () => {
    const after = add(TREE, message("a3", "q3", 7));
    expect(ids(path(after, leafBelow(after, "a1b")))).toEqual(["q1", "a1b", "q3", "a3"]);
    expect(TREE.has("a3")).toBe(false);
    expect(ids(children(TREE, "q3"))).toEqual([]);
  });

  it("of a question is a sibling beside it", () => {
    const image = { id: "i", mime: "image/png", blob: new Blob() };
    const asked = add(tree(), { ...message("q1", null, 1000), images: [image] });
    const edited = editAndBranch(asked, "q1", { content: "other" }, 5);
    expect(edited).toMatchObject({ parent: null, role: "user", content: "other", images: [image] });
    expect(edited.created).toBeGreaterThan(1000); // though the clock went back
    expect(siblings(add(asked, edited), edited.id).index).toBe(1);
    expect(editAndBranch(asked, "q1", { content: "", images: [] }).images).toEqual([]);
    expect(() => editAndBranch(asked, "unknown", { content: "" })).toThrow("no message unknown");
  });

  it("that removes takes what follows along", () => {
    expect(below(TREE, "a1")).toEqual(["a1", "q2", "a2"]);
    expect([...remove(TREE, "a1").keys()]).toEqual(["q1", "a1b", "q3"]);
    expect(TREE.size).toBe(6);
  });
});

it("ids are long enough to never meet, and fit an address", () => {
  const made = new Set(Array.from({ length: 1000 }, newId));
  expect(made.size).toBe(1000);
  for (const id of made) expect(id).toMatch(/^[0-9a-f]{20}$/);
});
