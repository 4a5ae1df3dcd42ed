/** What the keys that work everywhere open, fetched when it is first wanted, and a hint at them. */

import { useEffect } from "preact/hooks";
import { Icon } from "../components/Icon";
import { Lazy } from "../components/Lazy";
import { switcher as t } from "../texts/en/switcher";
import { apple, onShortcut, panel } from "./shortcuts";
import "./panels.css";

const LOAD = {
  switcher: () => import("./Switcher"),
  shortcuts: () => import("./Shortcuts"),
} as const;

export function Panels() {
  useEffect(() => {
    addEventListener("keydown", onShortcut);
    return () => {
      removeEventListener("keydown", onShortcut);
      panel.value = null;
    };
  }, []);
  const open = panel.value;
  if (open === null) return null;
  return (
    <div class="panel-place">
      <Lazy key={open} load={LOAD[open]} />
    </div>
  );
}

/** Opens the switcher, and says by which keys that is done. */
export function SwitcherButton({ onOpen }: { readonly onOpen?: () => void }) {
  return (
    <button
      type="button"
      class="switcher-button"
      aria-haspopup="dialog"
      aria-keyshortcuts={apple ? "Meta+K" : "Control+K"}
      onClick={() => {
        onOpen?.();
        panel.value = "switcher";
      }}
    >
      <Icon name="search" size={16} /> {t.open} <kbd>{apple ? "⌘ K" : "Ctrl K"}</kbd>
    </button>
  );
}
