/** Light or dark: what the system says, unless the person chose. */

import { effect, signal } from "@preact/signals";
import { local } from "./storage";

export type Theme = "system" | "light" | "dark";
const PLACE = "llm-gateway.theme";

const saved = local.get(PLACE);
export const theme = signal<Theme>(saved === "light" || saved === "dark" ? saved : "system");

/** What index.html says of the browser's own bars: light, then dark. */
const bars = [...document.querySelectorAll<HTMLMetaElement>('meta[name="theme-color"]')];
const colours = bars.map((one) => one.content);

/** The bars go with the page, where the person chose otherwise than the system. */
function colourBars(): void {
  for (const [index, bar] of bars.entries()) {
    const shown = theme.value === "system" ? index : theme.value === "light" ? 0 : 1;
    bar.content = colours[shown] ?? "";
  }
}

effect(() => {
  colourBars();
  if (theme.value === "system") {
    document.documentElement.removeAttribute("data-theme");
    local.remove(PLACE);
  } else {
    document.documentElement.dataset["theme"] = theme.value;
    local.set(PLACE, theme.value);
  }
});
