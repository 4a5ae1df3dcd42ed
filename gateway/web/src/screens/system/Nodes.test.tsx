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
    ["cellar", "down: no answer", "192.168.1.6", "nothing"],
    ["shed", "drained: takes no more models", "192.168.1.6", "", "nothing"],
  ]);
});
