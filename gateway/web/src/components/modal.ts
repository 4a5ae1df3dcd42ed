import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** A dialog that is open for as long as it is there: the browser's own, which keeps the focus in. */
export function useModal(): RefObject<HTMLDialogElement | null> {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const opener = document.activeElement;
    element.current?.showModal();
    return () => {
      // The browser gives the focus back when a dialog is closed; this one is out of the page by now.
      const isLost = document.activeElement === null || document.activeElement === document.body;
      if (isLost && opener instanceof HTMLElement) opener.focus();
    };
  }, []);
  return element;
}
