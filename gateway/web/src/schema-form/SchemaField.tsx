import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { withCode } from "../components/withCode";
import { schemaForm as t } from "../texts/en/schemaForm";
import { Control } from "./Control";
import { equal, type Json } from "./json";
import { type Field, textOf, wrongWith } from "./schema";

/** What the place of a form adds to what the schema says of a field. */
export interface Label {
  readonly title: string;
  readonly unit?: string | undefined;
  /** Rather a field of several lines. */
  readonly long?: boolean | undefined;
  /** What counts as long as nothing is written, in words. */
  readonly unset?: string | undefined;
}

export interface FieldProps {
  readonly field: Field;
  readonly label: Label;
  readonly value: Json | undefined;
  /** What it was before anything was changed: a field that differs is marked, and can be put back. */
  readonly was?: { readonly value: Json | undefined } | undefined;
  readonly onChange: (value: Json | undefined) => void;
  /** Told whether what is written can't be read, and so hasn't been taken over. */
  readonly onUnreadable?: ((unreadable: boolean) => void) | undefined;
  /** What the gateway says is wrong with it. */
  readonly problems?: readonly string[] | undefined;
  readonly readOnly?: boolean | undefined;
  /** Why it can't be changed, if only this one can't. */
  readonly reason?: string | undefined;
}

/** One property: its name, what it is for, and a control of its kind. */
export function SchemaField(props: FieldProps) {
  const { field, label, value, was, problems = [], reason, onChange, readOnly = false } = props;
  const id = useId();
  const wrong = wrongWith(value, field.kind);
  const said = wrong ? [t.wrong(wrong)] : problems;
  const changed = was !== undefined && !equal(was.value, value);
  const back = changed && (
    <PutBack title={label.title} {...props} onClick={() => onChange(was.value)} />
  );
  const kind = changed ? "schema-field changed" : "schema-field";
  if (field.kind.kind === "flag" && !field.kind.optional)
    return (
      <div class={kind}>
        <div class="schema-head">
          <label class="schema-flag">
            <input
              type="checkbox"
              checked={value === true}
              disabled={readOnly}
              aria-describedby={`${id}-help`}
              aria-invalid={said.length > 0 ? "true" : undefined}
              onChange={(event) => onChange(event.currentTarget.checked ? true : undefined)}
            />
            <Title field={field} label={label} />
          </label>
          {back}
        </div>
        <Help id={id} field={field} said={said} />
      </div>
    );
  const locked = readOnly || reason !== undefined;
  return (
    <div class={kind}>
      <div class="schema-head">
        <label for={id}>
          <Title field={field} label={label} />
        </label>
        {back}
      </div>
      <Control {...props} id={id} readOnly={locked} invalid={said.length > 0} />
      <Help id={id} field={field} said={said}>
        {reason !== undefined && (
          <>
            {" "}
            {reason}{" "}
            {value !== undefined && !readOnly && (
              <button type="button" class="link" onClick={() => onChange(undefined)}>
                {t.takeOut}
              </button>
            )}
          </>
        )}
      </Help>
    </div>
  );
}

/** The key as it is written in the file is told to who points at the name. */
function Title({ field, label }: { readonly field: Field; readonly label: Label }) {
  return (
    <span class="schema-title" title={field.path.join(".")}>
      {label.title}
      {label.unit !== undefined && <span class="soft"> ({label.unit})</span>}
    </span>
  );
}

interface PutBackProps extends FieldProps {
  readonly title: string;
  readonly onClick: () => void;
}

function PutBack({ field, title, was, onClick }: PutBackProps) {
  const before =
    field.kind.kind === "text" && field.kind.secret ? "" : textOf(was?.value, field.kind);
  return (
    <button type="button" class="link" title={t.was(before)} onClick={onClick}>
      {t.putBack} <span class="visually-hidden">{title}</span>
    </button>
  );
}

interface HelpProps {
  readonly id: string;
  readonly field: Field;
  readonly said: readonly string[];
  readonly children?: ComponentChildren;
}

function Help({ id, field, said, children }: HelpProps) {
  return (
    <div id={`${id}-help`} class="schema-help">
      {said.map((one) => (
        <p key={one} class="schema-problem">
          {withCode(one)}
        </p>
      ))}
      <p class="soft">
        {withCode(field.help)}
        {field.kind.kind === "text" && field.kind.secret && ` ${t.secret}`}
        {said.length > 0 && field.allowed !== undefined && ` ${t.allowed} ${field.allowed}`}
        {children}
      </p>
    </div>
  );
}
