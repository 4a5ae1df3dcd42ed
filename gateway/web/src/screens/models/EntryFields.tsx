/** The fields of an entry in groups, of which most are folded. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import { equal, type Json, type JsonObject, type Path, valueAt } from "../../schema-form/json";
import { JsonText } from "../../schema-form/JsonText";
import {
  closedPaths,
  type Field,
  type Schema,
  unknownKeys,
  wrongWith,
} from "../../schema-form/schema";
import { SchemaField } from "../../schema-form/SchemaField";
import { href } from "../../router";
import { modelEntry as t } from "../../texts/en/modelEntry";
import { type Problem, problemsAt } from "./entry";
import { liveModels, modelsFile } from "./facts";
import { type Group, grouped, GROUPS, isSet, isShown, joined, PROCESS_SETTINGS } from "./groups";
import { personalitiesOf } from "./personality";
import { labelOf, unsetOf } from "./titles";

interface Props {
  readonly name: string;
  readonly fields: readonly Field[];
  readonly schema: Schema;
  readonly root: Schema;
  /** The entry as it was before anything was changed. */
  readonly before: JsonObject;
  readonly draft: JsonObject;
  readonly problems: readonly Problem[];
  readonly readOnly: boolean;
  /** Another number puts what is half written out of all fields. */
  readonly edition: number;
  readonly onChange: (path: Path, value: Json | undefined) => void;
  readonly onUnreadable: (path: Path, unreadable: boolean) => void;
}

export function EntryFields(props: Props) {
  const { name, fields, schema, root, draft, readOnly, onChange, onUnreadable } = props;
  const closed = new Set(closedPaths(draft, schema).map(joined));
  const byGroup = useMemo(() => grouped(fields), [fields]);
  const others = unknownKeys(draft, schema, root);
  return (
    <>
      {GROUPS.map((group) => {
        const shown = (byGroup.get(group) ?? []).filter((one) => isShown(one, draft, closed));
        return (
          shown.length > 0 && (
            <FieldGroup key={group} {...props} group={group} shown={shown}>
              {group === "basic" && <PersonalitiesRow name={name} entry={draft} />}
            </FieldGroup>
          )
        );
      })}
      {others.length > 0 && (
        <Fold title={t.groups.other} set={others.length} changed={0} marked={0}>
          <p class="soft">{t.hints.other}</p>
          <div class="schema-fields">
            {others.map((path) => (
              <div key={`${props.edition}:${joined(path)}`} class="schema-field">
                <code>{joined(path)}</code>
                <JsonText
                  common={{ id: `other-${joined(path)}`, readOnly }}
                  label={joined(path)}
                  value={valueAt(draft, path)}
                  onChange={(value) => onChange(path, value)}
                  onUnreadable={(unreadable) => onUnreadable(path, unreadable)}
                />
              </div>
            ))}
          </div>
        </Fold>
      )}
    </>
  );
}

interface GroupProps extends Props {
  readonly group: Group;
  readonly shown: readonly Field[];
  readonly children: ComponentChildren;
}

function FieldGroup(props: GroupProps) {
  const { name, group, shown, before, draft, problems, readOnly, edition } = props;
  const free = modelsFile.value?.process_settings === true;
  const chosen = liveModels().find((one) => one.name === name)?.chosen?.params;
  const content = (
    <>
      {t.hints[group] && <p class="soft">{t.hints[group]}</p>}
      <div class="schema-fields">
        {shown.map((field) => (
          <SchemaField
            key={`${edition}:${joined(field.path)}`}
            field={field}
            label={{ ...labelOf(field), unset: unsetOf(field, name, chosen) }}
            value={valueAt(draft, field.path)}
            was={{ value: valueAt(before, field.path) }}
            problems={problemsAt(problems, field.path)}
            readOnly={readOnly}
            reason={PROCESS_SETTINGS.has(joined(field.path)) && !free ? t.reason : undefined}
            onChange={(value) => props.onChange(field.path, value)}
            onUnreadable={(unreadable) => props.onUnreadable(field.path, unreadable)}
          />
        ))}
        {props.children}
      </div>
    </>
  );
  if (group === "basic") return <div class="entry-group">{content}</div>;
  const changed = (one: Field): boolean =>
    !equal(valueAt(before, one.path), valueAt(draft, one.path));
  const marked = (one: Field): boolean =>
    wrongWith(valueAt(draft, one.path), one.kind) !== null ||
    problemsAt(problems, one.path).length > 0;
  return (
    <Fold
      title={t.groups[group]}
      set={shown.filter((one) => isSet(one, draft)).length}
      changed={shown.filter(changed).length}
      marked={shown.filter(marked).length}
    >
      {content}
    </Fold>
  );
}

interface FoldProps {
  readonly title: string;
  /** How many of its fields are set, are changed, have something wrong. */
  readonly set: number;
  readonly changed: number;
  readonly marked: number;
  readonly children: ComponentChildren;
}

/** A group that is opened by who wants it, and by itself where something in it is wrong. */
function Fold({ title, set, changed, marked, children }: FoldProps) {
  const open = useSignal(marked > 0);
  useEffect(() => {
    if (marked > 0) open.value = true;
  }, [marked]);
  return (
    <details
      class="entry-group"
      open={open.value}
      onToggle={(event) => (open.value = event.currentTarget.open)}
    >
      <summary>
        {title} {set > 0 && <span class="badge">{t.countSet(set)}</span>}{" "}
        {changed > 0 && <span class="badge">{t.countChanged(changed)}</span>}{" "}
        {marked > 0 && <span class="schema-problem">{t.countMarked(marked)}</span>}
      </summary>
      {children}
    </details>
  );
}

function PersonalitiesRow({ name, entry }: { readonly name: string; readonly entry: JsonObject }) {
  if (entry["embeddings"] === true || entry["reranking"] === true) return null;
  const names = [...personalitiesOf(entry).keys()];
  return (
    <div class="schema-field">
      <span class="schema-title">{t.personalities.title}</span>
      <p class="personalities-row">
        {names.length === 0 ? t.personalities.noneYet : names.join(", ")}
      </p>
      <a href={href("models", name, "personalities")}>{t.personalities.edit}</a>
    </div>
  );
}
