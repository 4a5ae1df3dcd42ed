/** An entry of models.json as a form made from its JSON Schema, or as the JSON it is. */

import { useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { Button } from "../../components/Button";
import { toast } from "../../components/Toasts";
import { GatewayError } from "../../gateway/errors";
import {
  difference,
  differences,
  isObject,
  type JsonObject,
  patched,
  withValueAt,
} from "../../schema-form/json";
import { JsonText } from "../../schema-form/JsonText";
import { fieldsOf, type Schema, wrongFields } from "../../schema-form/schema";
import { useUnreadable } from "../../schema-form/useUnreadable";
import { modelEntry as t } from "../../texts/en/modelEntry";
import { Conflict } from "./Conflict";
import { draftOf, keepDraft } from "./drafts";
import { changeEntry, definition, problemsOf, readEntry, type Stored } from "./entry";
import { EntryFields } from "./EntryFields";
import { liveModels, modelsFile } from "./facts";
import { joined } from "./groups";
import { Refusal } from "./Refusal";
import { WithEntry } from "./WithEntry";

export function EntryForm({ name }: { readonly name: string }) {
  return (
    <WithEntry
      name={name}
      show={(first, root) => <Editor name={name} first={first} root={root} />}
    />
  );
}

interface EditorProps {
  readonly name: string;
  readonly first: Stored;
  readonly root: Schema;
}

function Editor({ name, first, root }: EditorProps) {
  const form = useRef<HTMLFormElement>(null);
  const kept = useMemo(() => draftOf(name), [name]);
  const before = useSignal(kept?.before ?? first);
  const draft = useSignal<JsonObject>(kept?.entry ?? first.entry);
  const raw = useSignal(false);
  const busy = useSignal(false);
  const error = useSignal<unknown>(null);
  const theirs = useSignal<Stored | null>(null);
  const unreadable = useUnreadable();
  const edition = useSignal(0);
  const changes = useComputed(() => differences(before.value.entry, draft.value));
  const schema = useMemo(() => definition(root, "Entry"), [root]);
  const fields = useMemo(() => fieldsOf(schema, root), [schema, root]);
  const wrong = unreadable.any || wrongFields(draft.value, fields).length > 0;
  const readOnly = modelsFile.value?.writable === false;
  useSignalEffect(() => keepDraft(name, { before: before.value, entry: draft.value }));
  useEffect(() => {
    if (error.value !== null) toFirstProblem(form.current);
  }, [error.value]);

  const start = (stored: Stored, entry: JsonObject): void => {
    before.value = stored;
    draft.value = entry;
    theirs.value = error.value = null;
    edition.value += 1;
  };
  const save = async (): Promise<void> => {
    busy.value = true;
    error.value = null;
    try {
      const running = liveModels().find((one) => one.name === name)?.state === "ready";
      const stored = await changeEntry(name, before.value, draft.value);
      before.value = stored;
      draft.value = stored.entry;
      toast(running ? t.savedDrained(name) : t.saved(name));
    } catch (reason) {
      if (reason instanceof GatewayError && reason.status === 412)
        theirs.value = await readEntry(name).catch(() => null);
      error.value = reason;
    } finally {
      busy.value = false;
    }
  };
  /** Go on from what somebody else has written, with or without what was changed here. */
  const goOnFrom = (found: Stored, mine: boolean): void => {
    const merged = patched(found.entry, difference(before.value.entry, draft.value));
    start(found, mine && isObject(merged) ? merged : found.entry);
  };
  return (
    <form
      ref={form}
      class="entry-form"
      aria-label={t.formLabel(name)}
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      <div class="entry-ways">
        <Button kind="plain" onClick={() => (raw.value = !raw.value)}>
          {raw.value ? t.form : t.raw}
        </Button>
      </div>
      {theirs.value ? (
        <Conflict
          before={before.value.entry}
          mine={draft.value}
          theirs={theirs.value.entry}
          onMine={() => theirs.value && goOnFrom(theirs.value, true)}
          onTheirs={() => theirs.value && goOnFrom(theirs.value, false)}
        />
      ) : (
        error.value !== null && <Refusal error={error.value} name={name} fields={fields} />
      )}
      {raw.value ? (
        <JsonText
          key={`raw-${edition.value}`}
          common={{ id: "entry-json", readOnly }}
          label={t.rawLabel(name)}
          value={draft.value}
          refuse={(value) => (isObject(value) ? null : t.notAnObject)}
          onChange={(value) => {
            if (isObject(value)) draft.value = value;
          }}
          onUnreadable={(is) => unreadable.mark("", is)}
        />
      ) : (
        <EntryFields
          name={name}
          fields={fields}
          schema={schema}
          root={root}
          before={before.value.entry}
          draft={draft.value}
          problems={problemsOf(error.value, name)}
          readOnly={readOnly}
          edition={edition.value}
          onChange={(path, value) => (draft.value = withValueAt(draft.value, path, value))}
          onUnreadable={(path, is) => unreadable.mark(joined(path), is)}
        />
      )}
      {!readOnly && (
        <div class={changes.value.length === 0 && !wrong ? "save-bar nothing" : "save-bar"}>
          <p class="soft">
            {changes.value.length === 0 ? t.nothing : t.changes(changes.value.length)}{" "}
            {wrong
              ? t.mendFirst
              : changes.value.length > 0 && <span class="what-happens">{t.whatHappens}</span>}
          </p>
          <div class="save-buttons">
            <Button
              disabled={(changes.value.length === 0 && !wrong) || busy.value}
              onClick={() => start(before.value, before.value.entry)}
            >
              {t.discard}
            </Button>
            <Button
              kind="primary"
              type="submit"
              disabled={wrong || busy.value || changes.value.length === 0}
            >
              {t.save}
            </Button>
          </div>
        </div>
      )}
    </form>
  );
}

/** Once its group is unfolded, which is what the same rendering begins. */
function toFirstProblem(form: HTMLFormElement | null): void {
  requestAnimationFrame(() =>
    form?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus({ preventScroll: false }),
  );
}
