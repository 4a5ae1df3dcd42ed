import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { overview } from "../../gateway/live";
import type { Overview } from "../../gateway/types";
import { AddFromHub } from "./AddFromHub";

const asked: [string, string | undefined][] = [];
const OFFER = {
  repository: "me/tiny-GGUF",
  gated: false,
  quantisations: [
    { name: "Q4_0", files: ["a"], missing: 0, size: 9, memory: 9, fits: "yes", recommended: true },
  ],
};

beforeEach(() => {
  asked.length = 0;
  vi.stubGlobal("fetch", async (path: string, { body }: RequestInit) => {
    asked.push([path, body as string | undefined]);
    return new Response(JSON.stringify(path.startsWith("/admin/hub") ? OFFER : {}), {
      headers: { "Content-Type": "application/json" },
    });
  });
});
afterEach(() => {
  cleanup();
  overview.value = null;
  vi.unstubAllGlobals();
});

function withNodes(nodes: Overview["nodes"]): void {
  overview.value = { nodes } as Overview;
  render(<AddFromHub onBegun={() => {}} />);
}

it("asks and fetches for the machine that was chosen", async () => {
  withNodes([
    { name: "attic", up: true },
    { name: "cellar", up: false },
  ]);
  const onto = screen.getByLabelText("Onto");
  expect([...onto.querySelectorAll("option")].map((one) => one.textContent)).toEqual([
    "the gateway's machine",
    "attic",
  ]);
  fireEvent.input(screen.getByLabelText(/Repository/), { target: { value: "me/tiny-GGUF" } });
  fireEvent.click(screen.getByText("See what there is"));
  await screen.findByText("recommended");
  fireEvent.change(onto, { target: { value: "attic" } });
  await waitFor(() => expect(asked.length).toBe(2));
  fireEvent.click(await screen.findByRole("button", { name: "Fetch Q4_0" }));
  await waitFor(() => expect(asked.length).toBe(3));
  expect(asked).toEqual([
    ["/admin/hub?model=me%2Ftiny-GGUF", undefined],
    ["/admin/hub?model=me%2Ftiny-GGUF&node=attic", undefined],
    ["/admin/pulls", JSON.stringify({ model: "me/tiny-GGUF:Q4_0", node: "attic" })],
  ]);
});

it("asks nothing more where there is one machine", () => {
  withNodes([]);
  expect(screen.queryByLabelText("Onto")).toBeNull();
});
