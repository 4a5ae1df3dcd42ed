/** The personalities of a model: list, edit, rename, and try before they are saved. */

import { type Signal, useSignal, useSignalEffect } from "@preact/signals";
import { useId, useMemo } from "preact/hooks";
import { Button } from "../../components/Button";
import { Confirm } from "../../components/Dialog";
import { Empty } from "../../components/Empty";
import { Icon } from "../../components/Icon";
import { toast } from "../../components/Toasts";
import { withCode } from "../../components/withCode";
import { GatewayError } from "../../gateway/errors";
import { equal, type JsonObject, valueAt, withValueAt } from "../../schema-form/json";
import { type Field, fieldsOf, type Schema } from "../../schema-form/schema";
import { SchemaField } from "../../schema-form/SchemaField";
import { useUnreadable } from "../../schema-form/useUnreadable";
import { modelEntry } from "../../texts/en/modelEntry";
import { attempt } from "./actions";
import { Conflict } from "./Conflict";
import { keepPersonalityDraft, type PersonalityDraft, personalityDrafts } from "./drafts";
import { changeEntry, definition, problemsAt, problemsOf, readEntry, type Stored } from "./entry";
import { modelsFile } from "./facts";
import {
  asObject,
  asWritten,
  personalitiesOf,
  type Personality,
  withPersonality,
  wrongName,
} from "./personality";
import { Refusal } from "./Refusal";
import { labelOf } from "./titles";
import { TryIt } from "./TryIt";
import { WithEntry } from "./WithEntry";

const t = modelEntry.personalities;

export function Personalities({ name }: { readonly name: string }) {
  return (
    <WithEntry
      name={name}
      show={(first, root) => <PersonalityList name={name} first={first} root={root} />}
    />
  );
}

interface ListProps {
  readonly name: string;
  readonly first: Stored;
  readonly root: Schema;
}

function PersonalityList({ name, first, root }: ListProps) {
  const stored = useSignal(first);
  const busy = useSignal(false);
  const drafts = personalityDrafts(name);
  /** The one that is edited; "" is a new one, `null` none. */
  const selected = useSignal<string | null>(
    [...drafts.keys(), ...personalitiesOf(first.entry).keys()][0] ?? null,
  );
  const { entry } = stored.value;
  if (entry["embeddings"] === true || entry["reranking"] === true)
    return <p class="soft">{t.noChat}</p>;
  // One that somebody else has removed is in the list for as long as it is being changed here.
  const names = new Set([...personalitiesOf(entry).keys(), ...drafts.keys()]);
  const readOnly = modelsFile.value?.writable === false;
  const current = selected.value;
  return (
    <div class="personalities">
      <nav class="personality-list" aria-label={t.title}>
        <p class="soft">{withCode(t.hint(`${name}:${current || t.anyName}`))}</p>
        <ul>
          {[...names].map((one) => (
            <li key={one}>
              <button
                type="button"
                aria-current={one === current ? "true" : undefined}
                onClick={() => (selected.value = one)}
              >
                {one || t.newName} {drafts.has(one) && <small class="soft">{t.unsaved}</small>}
                <About personality={personalitiesOf(entry).get(one)} />
              </button>
            </li>
          ))}
        </ul>
        {!readOnly && (
          <Button onClick={() => (selected.value = "")}>
            <Icon name="plus" size={16} /> {t.add}
          </Button>
        )}
      </nav>
      {current === null ? (
        <Empty title={t.title}>
          <p>{t.empty}</p>
        </Empty>
      ) : (
        <PersonalityEditor
          key={`${current}:${stored.value.etag}`}
          model={name}
          own={current === "" ? null : current}
          stored={stored.value}
          root={root}
          readOnly={readOnly}
          busy={busy}
          onStored={(next, at) => {
            stored.value = next;
            if (selected.value !== current) return; // somebody has gone on to another one
            const there = [...personalitiesOf(next.entry).keys()];
            selected.value = at !== null && there.includes(at) ? at : (there[0] ?? null);
          }}
        />
      )}
    </div>
  );
}

/** What lists say of it, and whether they do. */
function About({ personality }: { readonly personality: Personality | undefined }) {
  const { description, unlisted } = asObject(personality ?? "");
  const said = [
    typeof description === "string" ? description : "",
    unlisted === true ? t.unlisted : "",
  ].filter(Boolean);
  return said.length > 0 ? <small class="soft about">{said.join(" · ")}</small> : null;
}

interface EditorProps {
  readonly model: string;
  readonly own: string | null;
  readonly stored: Stored;
  readonly root: Schema;
  readonly readOnly: boolean;
  /** Whether one of the model's is being saved: the next goes on from what comes of that. */
  readonly busy: Signal<boolean>;
  readonly onStored: (next: Stored, selected: string | null) => void;
}

/** A personality as it is saved in an entry. */
function savedIn({ entry }: Stored, own: string | null): Personality | undefined {
  return own === null ? undefined : personalitiesOf(entry).get(own);
}

/**
 * The entry that a change goes on from: as it is stored now, unless somebody else has changed this
 * personality since the draft was begun. Then it's the one of then, and saving tells of that.
 */
function baseOf(stored: Stored, own: string | null, kept: PersonalityDraft | undefined): Stored {
  if (kept === undefined) return stored;
  const [then, now] = [savedIn(kept.before, own), savedIn(stored, own)];
  const same = then === undefined ? now === undefined : now !== undefined && equal(then, now);
  return same ? stored : kept.before;
}

function PersonalityEditor({ model, own, stored, root, readOnly, busy, onStored }: EditorProps) {
  const id = useId();
  const kept = useMemo(() => personalityDrafts(model).get(own ?? ""), [model, own]);
  const base = useMemo(() => baseOf(stored, own, kept), [stored, own, kept]);
  const all = personalitiesOf(stored.entry);
  const before = savedIn(base, own);
  const first = asObject(before ?? "");
  const title = useSignal(kept?.name ?? own ?? "");
  const draft = useSignal<JsonObject>(kept?.value ?? first);
  const edition = useSignal(0);
  const error = useSignal<unknown>(null);
  const theirs = useSignal<Stored | null>(null);
  const removing = useSignal(false);
  const unreadable = useUnreadable();
  const fields = fieldsOf(definition(root, "Personality"), root);
  const more = fields.filter((one) => one.key !== "prompt");
  const named = wrongName(title.value, own, all);
  const differs = (name: string, value: JsonObject): boolean =>
    name.trim() !== (own ?? "") || !equal(asWritten(value, before), asWritten(first, before));
  const changed = differs(title.value, draft.value);
  useSignalEffect(() => {
    const [name, value] = [title.value, draft.value];
    const next = differs(name, value) ? { before: base, name, value } : null;
    keepPersonalityDraft(model, own ?? "", next);
  });
  const forget = (): void => keepPersonalityDraft(model, own ?? "", null);
  const discard = (): void => {
    title.value = own ?? "";
    draft.value = first;
    error.value = null;
    edition.value += 1;
  };
  const problems = problemsOf(error.value, `${model}.personalities.${title.value.trim()}`);

  const put = async (from: Stored): Promise<void> => {
    busy.value = true;
    error.value = null;
    try {
      const written = asWritten(draft.value, before);
      const after = withPersonality(from.entry, own, title.value.trim(), written);
      const next = await changeEntry(model, from, after);
      toast(t.saved(title.value.trim()));
      forget();
      onStored(next, title.value.trim());
    } catch (reason) {
      if (reason instanceof GatewayError && reason.status === 412)
        theirs.value = await readEntry(model).catch(() => null);
      error.value = reason;
    } finally {
      busy.value = false;
    }
  };
  const remove = async (): Promise<void> => {
    if (own === null) return;
    const next = await changeEntry(model, stored, withPersonality(stored.entry, own, own, null));
    forget();
    onStored(next, null);
    toast(t.removed(own));
  };
  const prompt = draft.value["prompt"];
  return (
    <div class="personality">
      <form
        class="personality-form"
        onSubmit={(event) => {
          event.preventDefault();
          void put(base);
        }}
      >
        {theirs.value ? (
          <Conflict
            before={base.entry}
            mine={withPersonality(base.entry, own, title.value, asWritten(draft.value, before))}
            theirs={theirs.value.entry}
            onMine={() => {
              const found = theirs.value;
              theirs.value = null;
              if (found) void put(found);
            }}
            onTheirs={() => {
              forget();
              if (theirs.value) onStored(theirs.value, own);
            }}
          />
        ) : (
          error.value !== null && <Refusal error={error.value} name={model} fields={fields} />
        )}
        <label class="field" for={`${id}-name`}>
          <span>{t.name}</span>
          <input
            id={`${id}-name`}
            class="input"
            placeholder={t.newName}
            readOnly={readOnly}
            aria-invalid={named !== null && title.value !== "" ? "true" : undefined}
            value={title}
            onInput={(event) => (title.value = event.currentTarget.value)}
          />
          {named !== null && title.value !== "" && <span class="schema-problem">{t[named]}</span>}
        </label>
        <label class="field" for={`${id}-prompt`}>
          <span>{modelEntry.titles["prompt"]}</span>
          <textarea
            id={`${id}-prompt`}
            class="input prompt"
            rows={10}
            readOnly={readOnly}
            value={typeof prompt === "string" ? prompt : ""}
            onInput={(event) => {
              const text = event.currentTarget.value;
              draft.value = withValueAt(draft.value, ["prompt"], text === "" ? undefined : text);
            }}
          />
        </label>
        <details open={more.some((one) => valueAt(kept?.value ?? first, one.path) !== undefined)}>
          <summary>{t.more}</summary>
          <div class="schema-fields">
            {more.map((field: Field) => (
              <SchemaField
                key={`${field.key}-${edition.value}`}
                field={field}
                label={labelOf(field)}
                value={valueAt(draft.value, field.path)}
                was={{ value: valueAt(first, field.path) }}
                problems={problemsAt(problems, field.path)}
                readOnly={readOnly}
                onChange={(value) => (draft.value = withValueAt(draft.value, field.path, value))}
                onUnreadable={(is) => unreadable.mark(field.key, is)}
              />
            ))}
          </div>
        </details>
        {!readOnly && (
          <div class="save-buttons">
            {changed && own !== null && <span class="soft">{t.unsaved}</span>}
            {(changed || unreadable.any) && <Button onClick={discard}>{modelEntry.discard}</Button>}
            {own !== null && all.has(own) && (
              <Button kind="plain" onClick={() => (removing.value = true)}>
                {t.remove}
              </Button>
            )}
            <Button
              kind="primary"
              type="submit"
              disabled={busy.value || unreadable.any || named !== null || !changed}
            >
              {t.save}
            </Button>
          </div>
        )}
      </form>
      <TryIt model={model} draft={draft.value} saved={own} />
      {removing.value && own !== null && (
        <Confirm
          title={t.removeTitle(own)}
          text={t.removeText(own)}
          action={t.remove}
          onConfirm={() => void attempt(remove)}
          onClose={() => (removing.value = false)}
        />
      )}
    </div>
  );
}
