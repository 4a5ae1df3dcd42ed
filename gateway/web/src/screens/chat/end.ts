import { useSignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

/** Pixels from the end within which a person is taken to be at it. */
const NEAR = 48;

/**
 * Keep a scrolling place at its end while its content grows, unless the person scrolled up.
 *
 * `key`: what is shown, which begins at its end; `last`: with a new one it goes to the end again.
 */
export function useEnd(
  place: RefObject<HTMLElement | null>,
  key: string,
  last: string | undefined,
): { readonly away: boolean; readonly toEnd: () => void } {
  const away = useSignal(false);
  const follows = useRef(true);
  const toEnd = (): void => {
    follows.current = true;
    away.value = false;
    const element = place.current;
    if (element) element.scrollTop = element.scrollHeight;
  };
  useLayoutEffect(toEnd, [key, last]);
  useEffect(() => {
    const element = place.current;
    const content = element?.firstElementChild;
    if (!element || !content) return;
    let top = element.scrollTop;
    const scrolled = (): void => {
      const rest = element.scrollHeight - element.clientHeight - element.scrollTop;
      // What grows leaves the end behind without anybody having scrolled up.
      if (rest <= NEAR) follows.current = true;
      else if (element.scrollTop < top) follows.current = false;
      top = element.scrollTop;
      away.value = rest > NEAR && !follows.current;
    };
    const grown = new ResizeObserver(() => {
      if (follows.current) element.scrollTop = element.scrollHeight;
    });
    element.addEventListener("scroll", scrolled, { passive: true });
    grown.observe(content);
    grown.observe(element);
    return () => {
      element.removeEventListener("scroll", scrolled);
      grown.disconnect();
    };
  }, [key]);
  return { away: away.value, toEnd };
}
