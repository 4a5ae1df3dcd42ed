/** What goes with a conversation that is deleted: its answer under way, and what isn't sent yet. */

import type { Removal } from "../../conversations/store";
import { takeDrafts } from "./draft";
import { stopRuns } from "./run";
import { takeUnsent } from "./unsent";

/** For `store.onRemove`. Drafts and pictures are there again if the conversation is. */
export async function takeAlong({ ids, here }: Removal): Promise<() => void> {
  await stopRuns(ids);
  // What another tab has deleted may be open here, and asked on.
  const back = here ? [takeDrafts(ids), takeUnsent(ids)] : [];
  return () => {
    for (const one of back) one();
  };
}
