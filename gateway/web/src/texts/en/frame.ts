/** Words of the frame around the screens. */

import { count } from "../../format";

export const frame = {
  navigation: "Screens",
  menu: "Open the menu",
  menuName: "Menu",
  unshown: "This could not be shown. If it fails again, reload the page.",
  skip: "Skip to the screen",
  theme: "Theme",
  themes: { system: "Same as system", light: "Light", dark: "Dark" },
  signOut: "Sign out",
  running: (requests: number): string => `${count(requests)} running`,
  waitFor: (requests: number, model: string): string => `${count(requests)} waiting for ${model}`,
  loads: (model: string, percent: number | null): string =>
    percent === null ? `${model} loads` : `${model} ${Math.round(percent)}%`,
  toModel: (model: string): string => `Open ${model}`,
  broken: "Connection lost.",
  offline: "This device is offline.",
  againIn: (seconds: number): string => `Trying again in ${count(seconds)} s.`,
  trying: "Trying again…",
  tryNow: "Try now",
  newVersion: "The gateway has a new version of this page.",
  reload: "Load it",
  memory: (device: string): string => `Memory of ${device}`,
  used: (used: string, total: string): string => `${used} of ${total} GiB used`,
  boxes: "Boxes",
  addBox: "Add a box",
  name: "Name",
  rename: "Rename",
  renameBox: "Rename this box",
  renameTitle: (name: string): string => `Rename ${name}`,
  removeBox: "Remove this box",
  removeTitle: (name: string): string => `Remove ${name}?`,
  removeText:
    "This browser forgets its address and its key. The box itself and your conversations stay.",
  adminOnly: "This screen is for admin keys",
  adminHow: "On the box, an admin key is made with",
  adminCommand: "llm-gateway keys create NAME --admin",
  otherKey: "Sign in with another key",
} as const;
