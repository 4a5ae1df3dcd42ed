/** What is being fetched from the hub, while the screen is open. */

import { signal } from "@preact/signals";
import { follow } from "../../gateway/events";
import { ask } from "../../gateway/request";
import { refreshFacts } from "./facts";

export interface Pull {
  readonly id: string;
  readonly model: string;
  readonly revision: string | null;
  readonly stage: string;
  readonly quantisation: string | null;
  readonly file: string | null;
  readonly bytes: number;
  readonly total: number | null;
  readonly speed: number | null;
  readonly seconds_left: number | null;
  readonly note: string | null;
  readonly error: { readonly message?: string } | null;
  readonly name: string | null;
  readonly ended: number | null;
  /** The machine of the cluster that fetches it; null: the gateway's own. */
  readonly node: string | null;
}

export const pulls = signal<readonly Pull[]>([]);

/** Follow them; returns how to end that. */
export function followPulls(): () => void {
  const control = new AbortController();
  let done = 0;
  void follow<{ pulls: readonly Pull[] }>("/admin/pulls", control.signal, (value) => {
    pulls.value = value.pulls;
    const now = value.pulls.filter((one) => one.stage === "done").length;
    if (now !== done) void refreshFacts();
    done = now;
  });
  return () => control.abort();
}

export async function beginPull(model: string, node: string | null): Promise<void> {
  await ask("/admin/pulls", { method: "POST", body: { model, ...(node !== null && { node }) } });
}

/** Stop one, or take one that is over off the list. */
export async function endPull(id: string): Promise<void> {
  await ask(`/admin/pulls/${encodeURIComponent(id)}`, { method: "DELETE" });
}
