import { render } from "preact";
import { expect, it } from "vitest";
import { size } from "../../format";
import { Nodes } from "./Nodes";
import type { Node } from "./types";

const GIB = 2 ** 30;
const ATTIC: Node = {
  name: "attic",
  up: true,
  drained: false,
  problem: null,
  host: "192.168.1.6",
  devices: [
    { name: "CUDA0", description: "RTX", total: 24 * GIB, free: 1, for_models: 22 * GIB, left: 1 },
  ],
  models: ["m", "n", "m"],
};

it("tells of each machine whether it is there, what it has, and who runs there", () => {
  const place = document.createElement("div");
  const cellar = { ...ATTIC, name: "cellar", up: false, problem: "no answer", models: [] };
  const shed = { ...ATTIC, name: "shed", drained: true, devices: [], models: [] };
  render(<Nodes nodes={[ATTIC, cellar, shed]} />, place);
  const cards = [...place.querySelectorAll("li")].map((card) => [
    card.querySelector("h3")?.textContent,
    card.querySelector(".state")?.textContent,
    ...[...card.querySelectorAll("dd")].map((fact) => fact.textContent),
  ]);
  expect(cards).toEqual([
    ["attic", "up", "192.168.1.6", `CUDA0 ${size(22 * GIB)} for models`, "m (2 copies), n"],
    ["cellar", "away: no answer", "192.168.1.6", "nothing"],
    ["shed", "drained: takes no more models", "192.168.1.6", "", "nothing"],
  ]);
});

it("tells why a machine takes no part in models that span several, and what is wrong there", () => {
  const place = document.createElement("div");
  const attic = {
    ...ATTIC,
    no_rpc: "there is no rpc-server beside its llama-server",
    troubles: ["/srv/models can't be read: Permission denied"],
  };
  const cellar = { ...attic, name: "cellar", up: false, problem: "no answer" };
  render(<Nodes nodes={[attic, cellar]} />, place);
  const [first, second] = [...place.querySelectorAll("li")].map((card) => card.textContent);
  expect(first).toContain(
    "no models with other machines: there is no rpc-server beside its llama-server",
  );
  expect(first).toContain("/srv/models can't be read: Permission denied");
  expect(second).not.toMatch(/span|read/); // what it was like doesn't matter while it is away
});
