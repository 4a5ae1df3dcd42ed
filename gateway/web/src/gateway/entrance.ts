/** Coming in: by the key in use, by a link, to another box; and why it didn't work. */

import { signal } from "@preact/signals";
import { box, forgetKey, key, removeBox, selectBox, takeKeyFromAddress } from "./connection";
import type { Diagnosis } from "./diagnose";
import { begin, end } from "./live";
import { diagnose } from "./probes";

/** Whether a try is under way, with nothing to show yet. */
export const entering = signal(false);
/** Why the last try failed; `null` before one, and where there was only no key. */
export const refused = signal<Diagnosis | null>(null);
/** Whether another box is being added while one is in use. */
export const adding = signal(false);

let tries = 0;

/** Try to come in at the box in use. Asks without a key too: a gateway may need none. */
export async function enter(): Promise<void> {
  refused.value = null;
  if (box.value === null) return;
  const place = { address: box.value.address, key: key.value };
  const mine = ++tries;
  entering.value = true;
  let found: Diagnosis | null = null;
  try {
    await begin();
  } catch (error) {
    found = await diagnose(place, error);
    if (found.kind === "wrong-key" && place.key === null) found = null;
  }
  if (mine !== tries) return; // meanwhile somebody went to another box
  refused.value = found;
  entering.value = false;
}

/** Go to another box. */
export function switchTo(address: string): void {
  adding.value = false;
  end();
  selectBox(address);
  void enter();
}

/** Forget the box in use, its key with it, and go to another one that is known. */
export function leaveBox(): void {
  if (!box.value) return;
  end();
  removeBox(box.value.address);
  void enter();
}

export function signOut(): void {
  end();
  forgetKey();
  refused.value = null;
}

/** Take a key from the address bar, now and whenever a link with one is followed in this tab. */
export function watchLinks(): void {
  takeKeyFromAddress();
  addEventListener("hashchange", () => {
    if (takeKeyFromAddress()) void enter();
  });
}
