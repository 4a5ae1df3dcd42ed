/** An entry of models.json as a form made from its JSON Schema, or as the JSON it is. */

import { useComputed, useSignal } from "@preact/signals";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { toast } from "../../components/Toasts";
import { GatewayError } from "../../gateway/errors";
import {
  difference,
  differences,
  equal,
  isObject,
  type Json,
  type JsonObject,
  type Path,
  patched,
  valueAt,
  withValueAt,
} from "../../schema-form/json";
import {
  closedPaths,
  type Field,
  fieldsOf,
  type Schema,
  unknownKeys,
  wrongFields,
} from "../../schema-form/schema";
import { JsonText, SchemaField } from "../../schema-form/SchemaField";
import { modelEntry as t } from "../../texts/en/modelEntry";
import { Conflict } from "./Conflict";
import {
  changeEntry,
  definition,
  type Problem,
  problemAt,
  problemsOf,
  readEntry,
  type Stored,
} from "./entry";
import { liveModels, modelsFile } from "./facts";
import { type Group, grouped, GROUPS, joined, PROCESS_SETTINGS } from "./groups";
import { labelOf } from "./titles";
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
  const before = useSignal(first);
  const draft = useSignal<JsonObject>(first.entry);
  const raw = useSignal(false);
  const busy = useSignal(false);
  const error = useSignal<unknown>(null);
  const theirs = useSignal<Stored | null>(null);
  const changes = useComputed(() => differences(before.value.entry, draft.value));
  const schema = definition(root, "Entry");
  const fields = fieldsOf(schema, root);
  const wrong = wrongFields(draft.value, fields).length > 0;
  const readOnly = modelsFile.value?.writable === false;

  const save = async (): Promise<void> => {
    busy.value = true;
    error.value = null;
    try {
      const running = liveModels().find((one) => one.name === name)?.state === "ready";
      before.value = await changeEntry(name, before.value, draft.value);
      draft.value = before.value.entry;
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
    const patch = difference(before.value.entry, draft.value);
    const merged = mine ? patched(found.entry, patch) : found.entry;
    before.value = found;
    draft.value = isObject(merged) ? merged : found.entry;
    theirs.value = null;
    error.value = null;
  };
  return (
    <form
      class="entry-form"
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      <div class="entry-ways">
        <Button onClick={() => (raw.value = !raw.value)}>{raw.value ? t.form : t.raw}</Button>
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
          common={{
            id: "entry-json",
            disabled: readOnly,
            "aria-describedby": undefined,
            "aria-invalid": undefined,
          }}
          label={t.rawLabel(name)}
          value={draft.value}
          onChange={(value) => {
            if (isObject(value)) draft.value = value;
          }}
        />
      ) : (
        <Groups
          fields={fields}
          schema={schema}
          root={root}
          draft={draft.value}
          problems={problemsOf(error.value, name)}
          readOnly={readOnly}
          onChange={(path, value) => (draft.value = withValueAt(draft.value, path, value))}
        />
      )}
      <div class="save-bar">
        <p class="soft">
          {changes.value.length === 0 ? t.nothing : t.changes(changes.value.length)}{" "}
          {changes.value.length > 0 && t.whatHappens}
        </p>
        <div class="save-buttons">
          <Button
            disabled={changes.value.length === 0 || busy.value}
            onClick={() => {
              draft.value = before.value.entry;
              error.value = null;
            }}
          >
            {t.discard}
          </Button>
          <Button
            kind="primary"
            type="submit"
            disabled={readOnly || wrong || busy.value || equal(draft.value, before.value.entry)}
          >
            {t.save}
          </Button>
        </div>
      </div>
    </form>
  );
}

interface RefusalProps {
  readonly error: unknown;
  readonly name: string;
  readonly fields: readonly Field[];
}

/** Why it was not saved; what is wrong with a field stands beside that too. */
export function Refusal({ error, name, fields }: RefusalProps) {
  if (error instanceof GatewayError && error.code === "process_setting") {
    const param = typeof error.details["param"] === "string" ? error.details["param"] : "";
    const field = fields.find((one) => joined(one.path) === param);
    const words = t.processSetting(field ? labelOf(field).title : param || t.aField);
    return (
      <div class="note bad" role="alert">
        <p>{words}</p>
      </div>
    );
  }
  const problems = problemsOf(error, name);
  if (problems.length === 0) return <ErrorNote error={error} />;
  return (
    <div class="note bad" role="alert">
      <p>{t.invalid}</p>
      <ul>
        {problems.map((one, index) => (
          <li key={index}>
            {one.path.length > 0 && <code>{joined(one.path)}</code>} {one.message}
          </li>
        ))}
      </ul>
    </div>
  );
}

interface GroupsProps {
  readonly fields: readonly Field[];
  readonly schema: Schema;
  readonly root: Schema;
  readonly draft: JsonObject;
  readonly problems: readonly Problem[];
  readonly readOnly: boolean;
  readonly onChange: (path: Path, value: Json | undefined) => void;
}

function Groups(props: GroupsProps) {
  const { fields, schema, root, draft } = props;
  const closed = new Set(closedPaths(draft, schema).map(joined));
  const byGroup = grouped(fields);
  const others = unknownKeys(draft, schema, root);
  return (
    <>
      {GROUPS.map((group) => {
        const all = byGroup.get(group) ?? [];
        const shown = all.filter((field) => {
          const set = valueAt(draft, field.path) !== undefined;
          return set || (!closed.has(joined(field.path)) && group !== "idle");
        });
        return shown.length === 0 ? null : (
          <FieldGroup key={group} {...props} group={group} shown={shown} />
        );
      })}
      {others.length > 0 && (
        <fieldset class="entry-group">
          <legend>{t.groups.other}</legend>
          <p class="soft">{t.hints.other}</p>
          {others.map((path) => (
            <div key={joined(path)} class="schema-field">
              <code>{joined(path)}</code>
              <JsonText
                common={{
                  id: `other-${joined(path)}`,
                  disabled: props.readOnly,
                  "aria-describedby": undefined,
                  "aria-invalid": undefined,
                }}
                label={joined(path)}
                value={valueAt(draft, path)}
                onChange={(value) => props.onChange(path, value)}
              />
            </div>
          ))}
        </fieldset>
      )}
    </>
  );
}

function FieldGroup(
  props: GroupsProps & { readonly group: Group; readonly shown: readonly Field[] },
) {
  const { group, shown, draft, problems, readOnly, onChange } = props;
  const free = modelsFile.value?.process_settings === true;
  const content = (
    <>
      {t.hints[group] && <p class="soft">{t.hints[group]}</p>}
      <div class="schema-fields">
        {shown.map((field) => (
          <SchemaField
            key={joined(field.path)}
            field={field}
            label={labelOf(field)}
            value={valueAt(draft, field.path)}
            problem={problemAt(problems, field.path)}
            readOnly={readOnly}
            reason={PROCESS_SETTINGS.has(joined(field.path)) && !free ? t.reason : undefined}
            onChange={(value) => onChange(field.path, value)}
          />
        ))}
      </div>
    </>
  );
  if (group !== "advanced" && group !== "idle")
    return (
      <fieldset class="entry-group">
        <legend>{t.groups[group]}</legend>
        {content}
      </fieldset>
    );
  const set = shown.some((field) => valueAt(draft, field.path) !== undefined);
  return (
    <details class="entry-group" open={set}>
      <summary>{t.groups[group]}</summary>
      {content}
    </details>
  );
}
