import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { lost } from "../gateway/live";

/**
 * A dialog that is open for as long as it is there: the browser's own, which keeps the focus in.
 *
 * It is closed while another key is asked for, over all there is: an open one makes the rest of the
 * page inert even where it can't be seen itself. What was typed in it stays.
 */
export function useModal(): RefObject<HTMLDialogElement | null> {
  const element = useRef<HTMLDialogElement>(null);
  const covered = lost.value;
  useLayoutEffect(() => {
    const opener = document.activeElement;
    // The browser gives the focus back when a dialog is closed; this one is taken out of the page,
    // right after this.
    const giveBack = (): void => {
      const isLost = document.activeElement === null || document.activeElement === document.body;
      if (isLost && opener instanceof HTMLElement) opener.focus();
    };
    return () => queueMicrotask(giveBack);
  }, []);
  useLayoutEffect(() => {
    const dialog = element.current;
    if (covered) dialog?.close();
    else if (dialog?.open === false) dialog.showModal();
  }, [covered]);
  return element;
}
