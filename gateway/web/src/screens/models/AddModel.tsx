/** A new model: from the files of this machine, from the hub, or of another server. */

import { useSignal } from "@preact/signals";
import { Dialog } from "../../components/Dialog";
import { modelEntry } from "../../texts/en/modelEntry";
import { AddElsewhere } from "./AddElsewhere";
import { AddFiles } from "./AddFiles";
import { AddFromHub } from "./AddFromHub";

const t = modelEntry.add;
const WAYS = ["files", "hub", "elsewhere"] as const;
type Way = (typeof WAYS)[number];

export function AddModel({ onClose }: { readonly onClose: () => void }) {
  const way = useSignal<Way>("files");
  return (
    <Dialog title={t.title} onClose={onClose}>
      <div class="tabs" role="group" aria-label={t.title}>
        {WAYS.map((one) => (
          <button
            key={one}
            type="button"
            aria-pressed={one === way.value}
            onClick={() => (way.value = one)}
          >
            {t.ways[one]}
          </button>
        ))}
      </div>
      {way.value === "files" && <AddFiles />}
      {way.value === "hub" && <AddFromHub onBegun={onClose} />}
      {way.value === "elsewhere" && <AddElsewhere onAdded={onClose} />}
    </Dialog>
  );
}
