/** Whether this browser has had an answer yet. */

import { signal } from "@preact/signals";

const PLACE = "llm-gateway.first-answer";

function read(): string | null {
  try {
    return localStorage.getItem(PLACE);
  } catch {
    return null;
  }
}

function has(place: string): boolean {
  try {
    return localStorage.getItem(place) !== null;
  } catch {
    return false;
  }
}

/** The id of the first answer of all; `null` before it. */
export const firstAnswer = signal<string | null>(read());

/** Remember an answer as the first, if there was none before. */
export function noteAnswer(id: string): void {
  if (firstAnswer.peek() !== null) return;
  firstAnswer.value = id;
  try {
    localStorage.setItem(PLACE, id);
  } catch {
    // then the next one is told of as the first, too
  }
}

const DISMISSED = "llm-gateway.use-it-closed";

/** Whether "Use it from your app" was closed for good. */
export const useItClosed = signal<boolean>(has(DISMISSED));

export function closeUseIt(): void {
  useItClosed.value = true;
  try {
    localStorage.setItem(DISMISSED, "yes");
  } catch {
    // then it is there again next time
  }
}
