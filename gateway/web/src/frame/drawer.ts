/** The sidebar on a phone: over the screen, until Escape, a tap beside it, or a step back. */

import { signal } from "@preact/signals";

export const drawerOpen = signal(false);

/** From this width on it is always there; see frame.css. */
const WIDE = matchMedia("(min-width: 900px)");
let opener: Element | null = null;
/** A step back that was asked for and has not come: browsers take their time. */
let returning = false;

/** Open it, as a step of the browser's history: so the phone's own gesture closes it. */
export function openDrawer(): void {
  if (drawerOpen.value || WIDE.matches) return;
  opener = document.activeElement;
  if (!returning) push();
  drawerOpen.value = true;
}

function push(): void {
  history.pushState({ drawer: true }, "", location.href);
}

/** Close it; `stepBack` takes its step out of the history, where nothing else has. */
export function closeDrawer(stepBack = true): void {
  if (!drawerOpen.value) return;
  drawerOpen.value = false;
  if (stepBack && !returning) {
    returning = true;
    history.back();
  }
  // Only when the screen behind is no longer inert.
  requestAnimationFrame(() => {
    if (stepBack && opener instanceof HTMLElement) opener.focus();
  });
}

/** Follow what closes it. Returns how to stop. */
export function watchDrawer(): () => void {
  const control = new AbortController();
  const { signal: ended } = control;
  addEventListener(
    "keydown",
    (event) => {
      // A menu or a dialog inside it closes itself first.
      const inside = document.querySelector("dialog[open], [popover]:popover-open");
      if (event.key === "Escape" && drawerOpen.value && !inside) closeDrawer();
    },
    { signal: ended },
  );
  addEventListener(
    "popstate",
    () => {
      if (returning) {
        // Its own; it may be open once more, and then stands on a step of its own again.
        returning = false;
        if (drawerOpen.value) push();
      } else if (drawerOpen.value) closeDrawer(false);
    },
    { signal: ended },
  );
  WIDE.addEventListener("change", () => closeDrawer(), { signal: ended });
  return () => {
    control.abort();
    drawerOpen.value = false;
  };
}
