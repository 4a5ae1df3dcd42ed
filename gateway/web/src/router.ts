/** Where the person is: `#/SCREEN/REST...`. By hash, because paths belong to the API. */

import { computed, signal } from "@preact/signals";

export const SCREENS = ["chat", "models", "activity", "keys", "usage", "system"] as const;
export type ScreenName = (typeof SCREENS)[number];

export interface Route {
  readonly screen: ScreenName;
  /** What follows the screen's name: a conversation, a model. Decoded. */
  readonly rest: readonly string[];
}

const hash = signal(location.hash);
addEventListener("hashchange", () => {
  hash.value = location.hash;
});

export const route = computed<Route>(() => parse(hash.value));

export function parse(text: string): Route {
  const [, first = "", ...rest] = text.replace(/^#/, "").split("/");
  const screen = SCREENS.find((one) => one === first);
  if (screen === undefined) return { screen: "chat", rest: [] };
  return { screen, rest: rest.filter(Boolean).map(decoded) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a screen, for links. */
export function href(screen: ScreenName, ...rest: string[]): string {
  return `#/${[screen, ...rest.map(encodeURIComponent)].join("/")}`;
}

/** Go there; `replace` leaves no step in the browser's history. */
export function go(to: string, replace = false): void {
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  hash.value = location.hash;
}
