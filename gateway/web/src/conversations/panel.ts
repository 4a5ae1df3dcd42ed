/** Whether the list of conversations is shown: a column on wide screens, a drawer on phones. */

import { effect, signal } from "@preact/signals";
import { local } from "../storage";

const PLACE = "llm-gateway.conversations";

const small = matchMedia("(max-width: 899px)");
export const narrow = signal(small.matches);
small.addEventListener("change", () => {
  narrow.value = small.matches;
  panelOpen.value = !small.matches && kept();
});

/** At first a column where there is room for it beside a chat that is wide enough to read. */
function kept(): boolean {
  return (local.get(PLACE) ?? (innerWidth >= 1100 ? "open" : "closed")) === "open";
}

export const panelOpen = signal(!small.matches && kept());

effect(() => {
  const open = panelOpen.value;
  if (!narrow.peek() && open !== kept()) local.set(PLACE, open ? "open" : "closed");
});
