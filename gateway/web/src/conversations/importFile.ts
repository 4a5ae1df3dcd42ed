/** Takes the conversations of a file into the store. */

import { BadFile } from "./parsed";
import type { ConversationStore } from "./store";
import type { Answer } from "./import.worker";

export interface Imported {
  readonly added: number;
  readonly known: number;
  readonly skipped: number;
}

/**
 * Import one file. `onProgress` is told how many conversations were added so far.
 *
 * Throws {@link BadFile}, and DOMException if the disk is full: what was added before stays.
 */
export async function importFile(
  store: ConversationStore,
  file: File,
  onProgress: (added: number) => void,
): Promise<Imported> {
  const worker = new Worker(new URL("./import.worker.ts", import.meta.url), { type: "module" });
  let [added, known] = [0, 0];
  try {
    for await (const answer of answers(worker, file)) {
      if (answer.kind === "bad") throw new BadFile(answer.why, answer.version);
      if (answer.kind === "end") return { added, known, skipped: answer.skipped };
      const taken = await store.addAll(answer.wholes);
      added += taken.conversations;
      known += taken.known;
      onProgress(added);
    }
    throw new BadFile("unreadable");
  } finally {
    worker.terminate();
  }
}

async function* answers(worker: Worker, file: File): AsyncGenerator<Answer> {
  const came: Answer[] = [];
  let wake = (): void => undefined;
  worker.addEventListener("message", (event: MessageEvent<Answer>) => {
    came.push(event.data);
    wake();
  });
  worker.addEventListener("error", () => {
    came.push({ kind: "bad", why: "unreadable", version: 0 });
    wake();
  });
  worker.postMessage(file);
  for (;;) {
    const next = came.shift();
    if (next) yield next;
    else await new Promise<void>((resolve) => (wake = resolve));
  }
}
