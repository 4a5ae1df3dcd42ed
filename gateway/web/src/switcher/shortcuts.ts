/** Keys that work everywhere: Ctrl-K and "/" open the switcher, "?" the help. */

import { signal } from "@preact/signals";

export type Panel = "switcher" | "shortcuts";

/** What is open, if anything is. */
export const panel = signal<Panel | null>(null);

/** Whether Apple's keyboard is meant, where Command takes the place of Ctrl. */
export const apple = /^(Mac|iP)/.test(navigator.platform);

export function onShortcut(event: KeyboardEvent): void {
  const wanted = panelFor(event);
  if (wanted === null || event.defaultPrevented || event.isComposing) return;
  event.preventDefault();
  if (panel.peek() === wanted) panel.value = null;
  else if (document.querySelector("dialog[open]") === null || panel.peek() !== null)
    panel.value = wanted; // never over a question that waits for its answer
}

function panelFor(event: KeyboardEvent): Panel | null {
  const { key, ctrlKey, metaKey, altKey, shiftKey } = event;
  if (key.toLowerCase() === "k")
    return (ctrlKey || metaKey) && !altKey && !shiftKey ? "switcher" : null;
  if (ctrlKey || metaKey || altKey || isTyping(event.target)) return null;
  return key === "/" ? "switcher" : key === "?" ? "shortcuts" : null;
}

/** Whether letters belong to a field. */
function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || target.closest("input, textarea, select") !== null;
}
