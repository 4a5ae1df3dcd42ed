import { cleanup, configure, fireEvent, render, screen, waitFor } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { addBox, selectBox } from "../../gateway/connection";
import type { JsonObject } from "../../schema-form/json";
import { forgetDrafts } from "./drafts";
import { Personalities } from "./Personalities";

configure({ asyncUtilTimeout: 30_000 }); // of a busy machine

const SCHEMA = { $defs: { Personality: { properties: { prompt: { type: "string" } } } } };

/** What a gateway has of the model `m`, and how often it was written. */
let entry: JsonObject;
let edition = 0;

async function answer(path: string, init: RequestInit = {}): Promise<Response> {
  if (path.endsWith("/schemas/models.json")) return Response.json(SCHEMA);
  if (!path.endsWith("/admin/models/m")) return Response.json({ data: [] });
  if (init.method === "PATCH") {
    const wanted = new Headers(init.headers).get("If-Match");
    const said = { error: { message: "It was changed.", code: "conflict" } };
    if (wanted !== `"${edition}"`) return Response.json(said, { status: 412 });
    const change = JSON.parse(String(init.body)) as { personalities: JsonObject };
    const before = entry["personalities"] as JsonObject;
    changes({ ...before, ...change.personalities });
  }
  return Response.json(entry, { headers: { ETag: `"${edition}"` } });
}

function changes(personalities: JsonObject): void {
  entry = { personalities };
  edition += 1;
}

beforeEach(() => {
  vi.stubGlobal("fetch", answer);
  addBox({ address: "http://box.test", name: "box" });
  selectBox("http://box.test");
  changes({ cook: "You cook.", poet: "You rhyme." });
});

afterEach(() => {
  cleanup();
  forgetDrafts("m");
  vi.unstubAllGlobals();
});

const prompt = (): HTMLTextAreaElement => screen.getByLabelText<HTMLTextAreaElement>(/prompt/);
const open = (name: RegExp): unknown => fireEvent.click(screen.getByRole("button", { name }));
const type = (text: string): unknown => fireEvent.input(prompt(), { target: { value: text } });
const shows = (text: string): Promise<void> => waitFor(() => expect(prompt().value).toBe(text));
const save = (): Promise<void> =>
  waitFor(() => {
    const button = screen.getByRole<HTMLButtonElement>("button", { name: "Save" });
    expect(button.disabled).toBe(false);
    fireEvent.click(button);
  });
const saved = (name: string): unknown => (entry["personalities"] as JsonObject)[name];

/** Whether the browser would ask before the page is closed. */
function asks(): boolean {
  return !dispatchEvent(new Event("beforeunload", { cancelable: true }));
}

it("keeps what was written while another one or another screen is looked at", async () => {
  render(<Personalities name="m" />);
  await shows("You cook.");
  expect(asks()).toBe(false);
  type("You bake.");
  open(/^poet/);
  await shows("You rhyme.");
  open(/^Add/);
  await shows("");
  type("You sing.");
  open(/^cook.*Not saved/);
  await shows("You bake.");
  expect(asks()).toBe(true);
  cleanup();
  render(<Personalities name="m" />);
  await shows("You bake.");
  open(/^New personality/);
  await shows("You sing.");
});

it("forgets it once it is saved or discarded, and saves one after the other", async () => {
  render(<Personalities name="m" />);
  await shows("You cook.");
  type("You bake.");
  open(/^poet/);
  await shows("You rhyme.");
  type("You sing.");
  await save();
  await waitFor(() => expect(saved("poet")).toBe("You sing."));
  open(/^cook/);
  await shows("You bake.");
  await save();
  await waitFor(() => expect(saved("cook")).toBe("You bake."));
  await waitFor(() => expect(asks()).toBe(false));
  type("You fry.");
  await waitFor(() => open(/^Discard/));
  await shows("You bake.");
  expect(asks()).toBe(false);
});

it("is told of by who has changed it meanwhile, and can be saved though it was removed", async () => {
  render(<Personalities name="m" />);
  await shows("You cook.");
  type("You bake.");
  cleanup();
  changes({ poet: "You rhyme." });
  render(<Personalities name="m" />);
  await shows("You bake.");
  await save();
  await screen.findByRole("alert");
  fireEvent.click(screen.getByRole("alert").querySelector("button.primary") as Element);
  await waitFor(() => expect(saved("cook")).toBe("You bake."));
  expect(saved("poet")).toBe("You rhyme.");
});
