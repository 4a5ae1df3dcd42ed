import { useSignal } from "@preact/signals";
import { Button } from "../components/Button";
import { Dialog } from "../components/Dialog";
import { files as t } from "../texts/en/conversations";
import { store } from "./conversations";
import { importFile } from "./importFile";
import { BadFile } from "./parsed";

interface Outcome {
  readonly name: string;
  readonly words: string;
  readonly bad: boolean;
}

/** Asks for files, and says of each what came of it. */
export function ImportDialog({ onClose }: { readonly onClose: () => void }) {
  const outcomes = useSignal<readonly Outcome[]>([]);
  const reading = useSignal<string | null>(null);
  const take = async (files: readonly File[]): Promise<void> => {
    outcomes.value = [];
    for (const file of files) {
      reading.value = t.reading(file.name);
      const outcome = await taken(file, (words) => (reading.value = words));
      outcomes.value = [...outcomes.value, outcome];
    }
    reading.value = null;
  };
  return (
    <Dialog title={t.title} onClose={onClose}>
      <p>{t.intro}</p>
      <label class="field">
        <span>{t.choose}</span>
        <input
          class="input"
          type="file"
          multiple
          accept=".json,.jsonl,.md,application/json,text/markdown"
          disabled={reading.value !== null}
          onChange={(event) => {
            void take([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = ""; // so that the same can be chosen again
          }}
        />
        <span class="hint">{t.intact}</span>
      </label>
      <div role="status" class="import-outcomes">
        {outcomes.value.map(({ name, words, bad }) => (
          <p key={name} class={bad ? "note bad" : "note"}>
            <strong>{name}</strong> {words}
          </p>
        ))}
        {reading.value !== null && <p class="soft">{reading.value}</p>}
      </div>
      <div class="actions">
        <Button kind="primary" onClick={onClose}>
          {t.done}
        </Button>
      </div>
    </Dialog>
  );
}

async function taken(file: File, say: (words: string) => void): Promise<Outcome> {
  const { name } = file;
  try {
    const { added, known, skipped } = await importFile(store, file, (sofar) =>
      say(`${t.reading(name)} ${t.added(sofar)}`),
    );
    const words = [
      t.added(added),
      ...(known > 0 ? [t.known(known)] : []),
      ...(skipped > 0 ? [t.skipped(skipped)] : []),
    ];
    return { name, words: words.join(" "), bad: false };
  } catch (error) {
    return { name, words: reasonOf(error), bad: true };
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof BadFile)
    return error.why === "newer" ? t.bad.newer(error.version) : t.bad[error.why];
  const full = error instanceof Error && error.name === "QuotaExceededError";
  return full ? t.bad.full : t.bad.failed;
}
