import { useSignal } from "@preact/signals";
import { actions as t } from "../texts/en/common";
import { Button } from "./Button";
import { Icon } from "./Icon";

interface Props {
  /** A function where making it takes a while. */
  readonly text: string | (() => string);
  readonly label?: string;
  /** Called once the text is in the clipboard. */
  readonly onCopied?: ((text: string) => void) | undefined;
}

/** Copies `text`, and says so for two seconds; or that the browser didn't let it. */
export function CopyButton({ text, label = t.copy, onCopied }: Props) {
  const done = useSignal(false);
  const failed = useSignal(false);
  const copy = async (): Promise<void> => {
    const made = typeof text === "string" ? text : text();
    failed.value = !(await copyText(made));
    if (failed.value) return;
    onCopied?.(made);
    done.value = true;
    setTimeout(() => (done.value = false), 2000);
  };
  return (
    <>
      <Button kind="plain" label={done.value ? t.copied : label} onClick={() => void copy()}>
        <Icon name={done.value ? "check" : "copy"} size={16} />
      </Button>
      {failed.value && <CopyFailed />}
    </>
  );
}

export function CopyFailed() {
  return (
    <span class="copy-failed" role="alert">
      {t.copyFailed}
    </span>
  );
}

/**
 * Put `text` into the clipboard, also over plain HTTP, where `navigator.clipboard` is missing.
 *
 * Returns whether it is there: a browser may refuse.
 */
export async function copyText(text: string): Promise<boolean> {
  const clipboard = navigator.clipboard as Clipboard | undefined;
  if (clipboard) {
    try {
      await clipboard.writeText(text);
      return true;
    } catch {
      // The older way is allowed where a policy or a person forbids this one.
    }
  }
  return copySelected(text);
}

function copySelected(text: string): boolean {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.readOnly = true; // no keyboard on the screen of a phone
  area.setAttribute("aria-hidden", "true");
  area.className = "visually-hidden";
  placeForSelection(focused).append(area);
  area.focus({ preventScroll: true });
  area.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    area.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  }
}

/**
 * Outside of a modal dialog all of the page is inert while it is open: nothing is selected there.
 *
 * Safari doesn't focus a button that is clicked, so the focus alone doesn't tell the dialog.
 */
function placeForSelection(focused: Element | null): Element {
  const open = document.querySelectorAll("dialog[open]");
  return focused?.closest("dialog") ?? open[open.length - 1] ?? document.body;
}
