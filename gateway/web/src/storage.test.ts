import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { local, session } from "./storage";

const blocked = new Proxy(
  {},
  {
    get: () => {
      throw new DOMException("The operation is insecure.", "SecurityError");
    },
  },
);

beforeEach(() => {
  localStorage.clear();
  sessionStorage.clear();
});
afterEach(() => vi.unstubAllGlobals());

describe("what the browser keeps", () => {
  it("is what it kept", () => {
    local.set("a", "1");
    session.set("a", "2");
    expect([localStorage.getItem("a"), sessionStorage.getItem("a")]).toEqual(["1", "2"]);
    expect([local.get("a"), session.get("a")]).toEqual(["1", "2"]);
    local.remove("a");
    expect([local.get("a"), session.get("a")]).toEqual([null, "2"]);
  });

  it("is remembered by this tab where the browser keeps nothing", () => {
    vi.stubGlobal("localStorage", blocked);
    expect(local.get("b")).toBeNull();
    local.set("b", "1");
    expect(local.get("b")).toBe("1");
    local.remove("b");
    expect(local.get("b")).toBeNull();
  });

  it("is no longer what it was before it got full", () => {
    local.set("c", "old");
    const full = {
      setItem: vi.fn(() => {
        throw new DOMException("full", "QuotaExceededError");
      }),
      getItem: () => "old",
    };
    vi.stubGlobal("localStorage", full);
    local.set("c", "new");
    expect(full.setItem).toHaveBeenCalledOnce();
    expect(local.get("c")).toBe("new");
  });
});

describe("modules that read it as the page opens", () => {
  it.each([
    ["theme", () => import("./theme")],
    ["panel", () => import("./conversations/panel")],
    ["connection", () => import("./gateway/connection")],
  ] as const)("%s loads where storage is blocked", async (_, load) => {
    vi.resetModules();
    vi.stubGlobal("localStorage", blocked);
    vi.stubGlobal("sessionStorage", blocked);
    expect(Object.keys(await load())).not.toHaveLength(0);
  });
});
