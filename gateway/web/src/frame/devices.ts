/** What people call the memory of a device: "GPU", for what llama.cpp names "CUDA0". */

import type { Device } from "../gateway/types";

/** The gateway's name for the memory of the machine itself. */
const RAM = "RAM";

export function calledBy(devices: readonly Device[], { name }: Device): string {
  if (name === RAM) return RAM;
  const cards = devices.filter((one) => one.name !== RAM);
  if (cards.length === 1) return "GPU";
  return `GPU ${cards.findIndex((one) => one.name === name)}`;
}

/** Its name in models.json, and the card's own. */
export function fullNameOf({ name, description }: Device): string {
  return description === "" || description === name ? name : `${description} (${name})`;
}
