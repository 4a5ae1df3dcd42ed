/** Which screens a key may see: a plain one no more than it may use. */

import type { ScreenName } from "../router";

const ADMIN: readonly ScreenName[] = ["chat", "models", "activity", "keys", "usage", "system"];
const USER: readonly ScreenName[] = ["chat", "usage"];

export function allowedScreens(role: "admin" | "user" | null): readonly ScreenName[] {
  return role === "admin" ? ADMIN : USER;
}
