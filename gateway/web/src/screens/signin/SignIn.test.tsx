import {
  act,
  cleanup,
  configure,
  fireEvent,
  render,
  screen,
  waitFor,
} from "@testing-library/preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

configure({ asyncUtilTimeout: 30_000 }); // of a busy machine

const BOXES = "llm-gateway.boxes";
const KITCHEN = { address: "https://kitchen.example", name: "Kitchen" };
const ATTIC = { address: "https://attic.example", name: "Attic" };

interface Asked {
  readonly url: string;
  readonly key: string | null;
  readonly answer: (status: number, body: unknown) => Promise<void>;
}

/** What the page has asked of the gateways, each to be answered when the test says so. */
let requests: Asked[];

function network(url: string, init: RequestInit): Promise<Response> {
  return new Promise((resolve, reject) => {
    init.signal?.addEventListener("abort", () => reject(new Error("aborted")));
    const headers = init.headers as Record<string, string>;
    requests.push({
      url,
      key: headers["Authorization"]?.replace("Bearer ", "") ?? null,
      answer: (status, body) =>
        act(async () => {
          resolve(Response.json(body, { status }));
          await Promise.resolve();
        }),
    });
  });
}

async function asked(url: string): Promise<Asked> {
  return waitFor(() => {
    const index = requests.findIndex((one) => one.url === url);
    if (index < 0) throw new Error(`${url} wasn't asked, but ${requests.map((one) => one.url)}`);
    return requests.splice(index, 1)[0]!;
  });
}

const healthy = { status: "ok" };
const models = { object: "list", data: [] };
const kept = (): unknown => JSON.parse(localStorage.getItem(BOXES) ?? "[]");

/** The page, hosted elsewhere, that knows two boxes: what it does there, by itself. */
async function page() {
  vi.resetModules();
  const entrance = await import("../../gateway/entrance");
  const connection = await import("../../gateway/connection");
  const live = await import("../../gateway/live");
  return { connection, live, ...entrance };
}

beforeEach(() => {
  requests = [];
  vi.stubGlobal("fetch", network);
  localStorage.clear();
  sessionStorage.clear();
  localStorage.setItem(BOXES, JSON.stringify([{ ...KITCHEN, key: "of the kitchen" }, ATTIC]));
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

describe("signing in", () => {
  it("keeps the key that is kept where none is typed", async () => {
    const { default: SignIn } = await page().then(() => import("./SignIn"));
    render(<SignIn />);
    const keep = screen.getByLabelText<HTMLInputElement>("Keep the key in this browser");
    expect(keep.checked).toBe(true);
    fireEvent.click(screen.getByRole("button", { name: "Sign in" }));
    await (await asked(`${KITCHEN.address}/health`)).answer(200, healthy);
    const tried = await asked(`${KITCHEN.address}/v1/models`);
    expect(tried.key).toBe("of the kitchen");
    await tried.answer(200, models);
    await asked(`${KITCHEN.address}/v1/models`); // it enters
    expect(kept()).toEqual([{ ...KITCHEN, key: "of the kitchen" }, ATTIC]);
  });

  it("gives up a try at a box that was left meanwhile, and the key typed there", async () => {
    const { switchTo, connection } = await page();
    const { default: SignIn } = await import("./SignIn");
    render(<SignIn />);
    const key = screen.getByLabelText<HTMLInputElement>("API key");
    fireEvent.input(key, { target: { value: "typed for the kitchen" } });
    fireEvent.click(screen.getByRole("button", { name: "Sign in" }));
    await (await asked(`${KITCHEN.address}/health`)).answer(200, healthy);
    const tried = await asked(`${KITCHEN.address}/v1/models`);
    await act(() => switchTo(ATTIC.address));
    const other = await asked(`${ATTIC.address}/v1/models`);
    await tried.answer(200, models);
    await other.answer(401, { error: { message: "no key", type: "authentication_error" } });
    const button = screen.getByRole<HTMLButtonElement>("button", { name: "Sign in" });
    await waitFor(() => expect(button.disabled).toBe(false));
    expect(key.value).toBe("");
    expect(connection.key.value).toBeNull();
    expect(kept()).toEqual([{ ...KITCHEN, key: "of the kitchen" }, ATTIC]);
    expect(requests).toEqual([]);
  });
});

describe("what is shown of a box", () => {
  it("isn't what another one has answered, which was left meanwhile", async () => {
    const { enter, connection, live } = await page();
    const entering = enter();
    const slow = await asked(`${KITCHEN.address}/v1/models`);
    connection.selectBox(ATTIC.address);
    await slow.answer(200, { data: [{ id: "of the kitchen" }] });
    await entering;
    expect(live.models.value).toBeNull();
    expect(requests).toEqual([]); // nor is the other one asked for the rest of it
  });

  it("goes when the box is left, or its key forgotten in another tab", async () => {
    const { enter, connection, live } = await page();
    const signIn = async (): Promise<void> => {
      const entering = enter();
      await (await asked(`${KITCHEN.address}/v1/models`)).answer(200, models);
      await (
        await asked(`${KITCHEN.address}/admin/status`)
      ).answer(403, {
        error: { message: "not for this key", type: "permission_error" },
      });
      await entering;
      expect(live.signedIn.value).toBe(true);
    };
    await signIn();
    connection.selectBox(ATTIC.address);
    expect(live.signedIn.value).toBe(false);
    expect(live.models.value).toBeNull();
    connection.selectBox(KITCHEN.address);
    await signIn();
    localStorage.setItem(BOXES, JSON.stringify([KITCHEN, ATTIC]));
    dispatchEvent(new StorageEvent("storage", { key: BOXES }));
    expect(live.signedIn.value).toBe(false);
  });
});
