/** Where an answer comes from: one box to its end, though the person goes to another meanwhile. */

import { effect } from "@preact/signals";
import { box, boxes, key, keyRefused } from "../../gateway/connection";
import type { Place } from "../../gateway/request";

/** The box in use, and the key in use there. */
export function placeInUse(): Place {
  return { address: box.peek()?.address ?? "", key: key.peek() };
}

/** A place refused its key: if it is the one in use, another key is asked for. */
export function refusedAt(place: Place): void {
  const now = placeInUse();
  if (place.address === now.address && place.key === now.key) keyRefused.value = place.key;
}

/**
 * Call `left` when the person has signed out of a place, or forgotten it; not for having gone to
 * another one. Returns what ends it.
 */
export function watchPlace(place: Place, left: () => void): () => void {
  let watching = true;
  const look = (): void => {
    const now = placeInUse();
    const signedOut = now.address === place.address && now.key === null && place.key !== null;
    const forgotten = !boxes.peek().some((one) => one.address === place.address);
    if (watching && (signedOut || forgotten)) left();
  };
  const end = effect(() => {
    void [boxes.value, box.value, key.value];
    // A step later: box and key are changed one after the other, and belong together only then.
    queueMicrotask(look);
  });
  return () => {
    watching = false;
    end();
  };
}
