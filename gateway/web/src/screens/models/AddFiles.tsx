import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { toast } from "../../components/Toasts";
import { withCode } from "../../components/withCode";
import { size } from "../../format";
import { askJson } from "../../gateway/request";
import type { JsonObject } from "../../schema-form/json";
import { modelEntry } from "../../texts/en/modelEntry";
import { models as words } from "../../texts/en/models";
import { makeEntry } from "./entry";
import { Refusal } from "./Refusal";

const t = modelEntry.add;

/** An object of GET /admin/storage. */
interface StoredFile {
  readonly file: string;
  readonly size: number;
  readonly parts: number;
  readonly task: string | null;
  readonly quantisation: string | null;
  readonly context: number | null;
  readonly tools: boolean;
  readonly vision: boolean;
  readonly audio: boolean;
  readonly problem: string | null;
  readonly name: string | null;
  readonly entry: JsonObject | null;
  readonly memory: number | null;
  readonly doubt: string | null;
}

/** The files that models.json doesn't name, each with the entry that fits this machine. */
export function AddFiles() {
  const files = useSignal<readonly StoredFile[] | null>(null);
  const error = useSignal<unknown>(null);
  const look = (): void => {
    error.value = files.value = null;
    askJson<readonly StoredFile[]>("/admin/storage").then(
      (answer) => (files.value = answer),
      (reason: unknown) => (error.value = reason),
    );
  };
  useEffect(look, []);
  if (error.value !== null)
    return (
      <ErrorNote error={error.value}>
        <p>
          <Button onClick={look}>{t.files.again}</Button>
        </p>
      </ErrorNote>
    );
  if (files.value === null) return <p class="soft">{withCode(t.files.looking)}</p>;
  if (files.value.length === 0) return <p class="soft">{withCode(t.files.none)}</p>;
  const usable = files.value.filter((one) => one.entry !== null);
  const others = files.value.filter((one) => one.entry === null);
  return (
    <ul class="found-files">
      {[...usable, ...others].map((one) => (
        <FoundFile
          key={one.file}
          found={one}
          onAdded={() => (files.value = files.value?.filter((other) => other !== one) ?? null)}
        />
      ))}
    </ul>
  );
}

interface FoundProps {
  readonly found: StoredFile;
  readonly onAdded: () => void;
}

function FoundFile({ found, onAdded }: FoundProps) {
  const name = useSignal(found.name ?? "");
  const busy = useSignal(false);
  const error = useSignal<unknown>(null);
  const add = async (entry: JsonObject): Promise<void> => {
    busy.value = true;
    error.value = null;
    try {
      await makeEntry(name.value.trim(), entry);
      toast(t.added(name.value.trim()));
      onAdded();
    } catch (reason) {
      error.value = reason;
      busy.value = false;
    }
  };
  const { entry } = found;
  return (
    <li class="found-file">
      <code>{found.file}</code>
      <p class="soft">{aboutFile(found)}</p>
      {found.problem !== null && <p class="schema-problem">{withCode(found.problem)}</p>}
      {found.doubt !== null && <p class="note warn small">{withCode(found.doubt)}</p>}
      {error.value !== null && <Refusal error={error.value} name={name.value} fields={[]} />}
      {entry !== null && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void add(entry);
          }}
        >
          <label class="field">
            <span>
              {t.name}
              <span class="visually-hidden">: {found.file}</span>
            </span>
            <input
              class="input"
              autoComplete="off"
              spellcheck={false}
              value={name}
              onInput={(event) => (name.value = event.currentTarget.value)}
            />
          </label>
          <Button kind="primary" type="submit" disabled={busy.value || name.value.trim() === ""}>
            {t.addIt} <span class="visually-hidden">{name}</span>
          </Button>
        </form>
      )}
    </li>
  );
}

function aboutFile(found: StoredFile): string {
  return [
    found.task !== null && found.task !== "chat" ? found.task : "",
    found.quantisation ?? "",
    size(found.size),
    found.parts > 1 ? t.files.parts(found.parts) : "",
    found.context ? words.card.context(found.context) : "",
    found.memory ? t.files.fits(size(found.memory)) : "",
    found.vision && found.entry ? t.files.vision : "",
    found.audio && found.entry ? t.files.audio : "",
    found.tools ? t.files.tools : "",
  ]
    .filter(Boolean)
    .join(" · ");
}
