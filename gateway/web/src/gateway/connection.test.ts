import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

type Connection = typeof import("./connection");

const BOXES = "llm-gateway.boxes";
const HERE = { address: "", name: "here" };
const KITCHEN = { address: "https://kitchen.example", name: "Kitchen" };
const ATTIC = { address: "https://attic.example", name: "Attic" };

/** The page as a tab loads it, served by a gateway. */
async function tab(): Promise<Connection> {
  vi.resetModules();
  return import("./connection");
}

const kept = (): unknown => JSON.parse(localStorage.getItem(BOXES) ?? "[]");

/** What another tab writes, and what the browser tells this one of it. */
function elsewhere(boxes: readonly object[]): void {
  localStorage.setItem(BOXES, JSON.stringify(boxes));
  dispatchEvent(new StorageEvent("storage", { key: BOXES }));
}

beforeEach(() => {
  localStorage.clear();
  sessionStorage.clear();
  document.head.innerHTML = '<meta name="llm-gateway" content="test">';
  location.hash = "";
});
afterEach(() => vi.unstubAllGlobals());

describe("the key of a box", () => {
  beforeEach(() => localStorage.setItem(BOXES, JSON.stringify([{ ...HERE, key: "kept" }])));

  it("stays kept when a link brings another one, which this tab uses", async () => {
    location.hash = "#key=from-a-link";
    const here = await tab();
    expect(here.takeKeyFromAddress()).toBe(true);
    expect(here.key.value).toBe("from-a-link");
    expect(here.keyIsKept.value).toBe(false);
    expect(kept()).toEqual([{ ...HERE, key: "kept" }]);
  });

  it("that is kept is tried after the one in use was refused", async () => {
    const here = await tab();
    expect(here.keyToTry.value).toBe("kept");
    here.useKey("wrong");
    expect(here.keyToTry.value).toBe("wrong");
    here.keyRefused.value = "wrong";
    expect(here.keyToTry.value).toBe("kept");
    here.keyRefused.value = "kept";
    here.useKey("kept");
    expect(here.keyToTry.value).toBeNull();
  });

  it("is kept in place of another one only if asked, and forgotten if asked", async () => {
    const here = await tab();
    here.useKey("new");
    here.keepKey(true);
    expect(kept()).toEqual([{ ...HERE, key: "new" }]);
    here.forgetKey();
    expect(here.key.value).toBeNull();
    expect(kept()).toEqual([HERE]);
  });
});

describe("boxes in several tabs", () => {
  it("of another tab survive what this one writes", async () => {
    const here = await tab();
    here.addBox(KITCHEN);
    // Before the browser has told this tab of it:
    localStorage.setItem(BOXES, JSON.stringify([HERE, KITCHEN, { ...ATTIC, key: "its" }]));
    here.useKey("mine");
    here.keepKey(true);
    expect(kept()).toEqual([
      { address: "", name: "here", key: "mine" },
      KITCHEN,
      { ...ATTIC, key: "its" },
    ]);
    expect(here.boxes.value.map((one) => one.name)).toEqual(["here", "Kitchen", "Attic"]);
  });

  it("that another tab adds or renames are shown here", async () => {
    const here = await tab();
    elsewhere([HERE, { ...KITCHEN, name: "Scullery" }]);
    expect(here.boxes.value.map((one) => one.name)).toEqual(["here", "Scullery"]);
  });

  it("are left for another one when another tab removes the one in use", async () => {
    const here = await tab();
    here.addBox(KITCHEN);
    here.selectBox(KITCHEN.address);
    expect(here.box.value).toEqual(KITCHEN);
    elsewhere([HERE]);
    expect(here.box.value).toEqual(HERE);
  });

  it("that are gone are not gone back to", async () => {
    localStorage.setItem(BOXES, JSON.stringify([HERE, ATTIC]));
    sessionStorage.setItem("llm-gateway.box", KITCHEN.address);
    expect((await tab()).box.value).toEqual(HERE);
  });
});

describe("where the browser keeps nothing", () => {
  const blocked = (): never => {
    throw new DOMException("The operation is insecure.", "SecurityError");
  };

  it("boxes and keys hold for as long as the tab is open", async () => {
    for (const name of ["localStorage", "sessionStorage"])
      vi.stubGlobal(name, new Proxy({}, { get: blocked }));
    const here = await tab();
    expect(here.box.value?.address).toBe("");
    here.useKey("of here");
    here.addBox(KITCHEN);
    here.selectBox(KITCHEN.address);
    here.useKey("of the kitchen");
    here.addBox(ATTIC);
    expect(here.boxes.value.map((one) => one.name)).toEqual([
      location.hostname,
      "Kitchen",
      "Attic",
    ]);
    here.selectBox("");
    expect(here.key.value).toBe("of here");
  });
});
