import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { Button } from "../components/Button";
import { Icon } from "../components/Icon";
import { schemaForm as t } from "../texts/en/schemaForm";
import { isObject, type Json, type JsonObject } from "./json";
import { type Field, textOf, valueOf, wrongWith } from "./schema";

/** What the place of a form adds to what the schema says of a field. */
export interface Label {
  readonly title: string;
  readonly unit?: string | undefined;
  /** Rather a field of several lines. */
  readonly long?: boolean | undefined;
}

interface Props {
  readonly field: Field;
  readonly label: Label;
  readonly value: Json | undefined;
  readonly onChange: (value: Json | undefined) => void;
  /** What the gateway says is wrong with it. */
  readonly problem?: string | undefined;
  readonly readOnly?: boolean | undefined;
  /** Why it can't be changed, if only this one can't. */
  readonly reason?: string | undefined;
}

/** One property: its name, what it is for, and a control of its kind. */
export function SchemaField(props: Props) {
  const { field, label, value, problem, reason, onChange, readOnly } = props;
  const id = useId();
  const wrong = wrongWith(value, field.kind);
  const said = wrong ? t.wrong(wrong) : problem;
  if (field.kind.kind === "flag" && !field.kind.optional)
    return (
      <div class="schema-field flag">
        <label>
          <input
            type="checkbox"
            checked={value === true}
            disabled={readOnly}
            aria-describedby={`${id}-help`}
            onChange={(event) => onChange(event.currentTarget.checked ? true : undefined)}
          />
          <Title field={field} label={label} />
        </label>
        <Help id={id} field={field} said={said} />
      </div>
    );
  const locked = readOnly === true || reason !== undefined;
  return (
    <div class="schema-field">
      <label for={id}>
        <Title field={field} label={label} />
      </label>
      <Control {...props} id={id} readOnly={locked} invalid={said !== undefined} />
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

function Title({ field, label }: { readonly field: Field; readonly label: Label }) {
  return (
    <span class="schema-title">
      {label.title} {label.unit !== undefined && <span class="soft">({label.unit})</span>}{" "}
      <code class="soft">{field.key}</code>
    </span>
  );
}

interface HelpProps {
  readonly id: string;
  readonly field: Field;
  readonly said: string | undefined;
  readonly children?: ComponentChildren;
}

function Help({ id, field, said, children }: HelpProps) {
  return (
    <div id={`${id}-help`} class="schema-help">
      {said !== undefined && <p class="schema-problem">{said}</p>}
      <p class="soft">
        {field.help}
        {field.kind.kind === "text" && field.kind.secret && ` ${t.secret}`}
        {said !== undefined && field.allowed !== undefined && ` ${t.allowed} ${field.allowed}.`}
        {children}
      </p>
    </div>
  );
}

type ControlProps = Props & { readonly id: string; readonly invalid: boolean };

function Control({ field, label, value, onChange, readOnly, id, invalid }: ControlProps) {
  const { kind } = field;
  const common = {
    id,
    disabled: readOnly,
    "aria-describedby": `${id}-help`,
    "aria-invalid": invalid ? ("true" as const) : undefined,
  };
  const usual =
    field.fallback === undefined || field.fallback === null ? "" : String(field.fallback);
  switch (kind.kind) {
    case "flag":
      return (
        <select
          {...common}
          class="input"
          value={value === undefined || value === null ? "" : String(value)}
          onChange={(event) => {
            const text = event.currentTarget.value;
            onChange(text === "" ? undefined : text === "true");
          }}
        >
          <option value="">{t.notSet}</option>
          <option value="true">{t.yes}</option>
          <option value="false">{t.no}</option>
        </select>
      );
    case "choice":
      return (
        <select
          {...common}
          class="input"
          value={textOf(value, kind)}
          onChange={(event) => onChange(valueOf(event.currentTarget.value, kind))}
        >
          <option value="">{t.own}</option>
          {kind.options.map((one) => (
            <option key={one} value={one}>
              {one}
            </option>
          ))}
        </select>
      );
    case "number":
    case "quantity":
    case "mixed":
    case "text": {
      if (label.long)
        return (
          <textarea
            {...common}
            class="input"
            rows={5}
            value={textOf(value, kind)}
            onInput={(event) => onChange(valueOf(event.currentTarget.value, kind))}
          />
        );
      const words =
        kind.kind === "mixed" ? kind.words.concat(kind.flag ? ["true", "false"] : []) : [];
      if (kind.kind === "text" && kind.secret)
        return (
          <input
            {...common}
            class="input mono"
            type="password"
            autoComplete="off"
            value={textOf(value, kind)}
            onFocus={(event) => event.currentTarget.select()}
            onInput={(event) => onChange(valueOf(event.currentTarget.value, kind))}
          />
        );
      return (
        <>
          <input
            {...common}
            class="input"
            type="text"
            inputMode={kind.kind === "number" ? "decimal" : undefined}
            autoComplete="off"
            spellcheck={false}
            list={words.length > 0 ? `${id}-words` : undefined}
            placeholder={usual && t.usually(usual)}
            value={textOf(value, kind)}
            onInput={(event) => onChange(valueOf(event.currentTarget.value, kind))}
          />
          {words.length > 0 && (
            <datalist id={`${id}-words`}>
              {words.map((word) => (
                <option key={word} value={word} />
              ))}
            </datalist>
          )}
        </>
      );
    }
    case "lines":
      return <Lines common={common} value={value} onChange={onChange} />;
    case "map":
      return (
        <Pairs
          label={label.title}
          value={isObject(value) ? value : {}}
          text={kind.text}
          disabled={readOnly === true}
          onChange={onChange}
        />
      );
    case "group":
    case "json":
      return <JsonText common={common} value={value} onChange={onChange} />;
  }
}

interface Common {
  readonly id: string;
  readonly disabled: boolean | undefined;
  readonly "aria-describedby": string | undefined;
  readonly "aria-invalid": "true" | undefined;
}

interface PartProps {
  readonly common: Common;
  /** Its name, where no label stands before it. */
  readonly label?: string | undefined;
  readonly value: Json | undefined;
  readonly onChange: (value: Json | undefined) => void;
}

/** A list of texts. What is being written (an empty last line) stays until it is left. */
function Lines({ common, value, onChange }: PartProps) {
  const kind = { kind: "lines" } as const;
  const written = useSignal<string | null>(null);
  const text = written.value ?? textOf(value, kind);
  return (
    <textarea
      {...common}
      class="input"
      rows={Math.min(8, Math.max(2, text.split("\n").length))}
      placeholder={t.perLine}
      value={text}
      onInput={(event) => {
        written.value = event.currentTarget.value;
        onChange(valueOf(event.currentTarget.value, kind));
      }}
      onBlur={() => (written.value = null)}
    />
  );
}

/** Any JSON; as long as it is none, nothing changes. */
export function JsonText({ common, label, value, onChange }: PartProps) {
  const written = useSignal<string | null>(null);
  const wrong = useSignal<string | null>(null);
  const text = written.value ?? (value === undefined ? "" : JSON.stringify(value, null, 2));
  return (
    <>
      <textarea
        {...common}
        aria-label={label}
        class="input mono"
        rows={Math.min(32, Math.max(2, text.split("\n").length))}
        spellcheck={false}
        aria-invalid={wrong.value === null ? common["aria-invalid"] : "true"}
        value={text}
        onInput={(event) => {
          written.value = event.currentTarget.value;
          try {
            const trimmed = event.currentTarget.value.trim();
            onChange(trimmed === "" ? undefined : (JSON.parse(trimmed) as Json));
            wrong.value = null;
          } catch (error) {
            wrong.value = t.notJson(error instanceof Error ? error.message : "");
          }
        }}
        onBlur={() => {
          if (wrong.value === null) written.value = null;
        }}
      />
      {wrong.value !== null && <p class="schema-problem">{wrong.value}</p>}
    </>
  );
}

interface PairsProps {
  readonly label: string;
  readonly value: JsonObject;
  /** Values are texts; else they are JSON, and what is none is taken as a text. */
  readonly text: boolean;
  readonly disabled: boolean;
  readonly onChange: (value: Json | undefined) => void;
}

/** An object whose keys are free: names and values in rows. */
function Pairs({ label, value, text, disabled, onChange }: PairsProps) {
  const key = useSignal("");
  const put = (next: JsonObject): void =>
    onChange(Object.keys(next).length === 0 ? undefined : next);
  return (
    <div class="schema-pairs" role="group" aria-label={label}>
      {Object.entries(value).map(([name, inner]) => (
        <div key={name} class="schema-pair">
          <code>{name}</code>
          <input
            class="input mono"
            aria-label={`${label}: ${name}`}
            disabled={disabled}
            spellcheck={false}
            value={
              typeof inner === "string" && (text || !readsAsJson(inner))
                ? inner
                : JSON.stringify(inner)
            }
            onChange={(event) => {
              const written = event.currentTarget.value;
              put({ ...value, [name]: text ? written : jsonOrText(written) });
            }}
          />
          <Button
            kind="plain"
            label={t.removePair(name)}
            disabled={disabled}
            onClick={() =>
              put(Object.fromEntries(Object.entries(value).filter(([other]) => other !== name)))
            }
          >
            <Icon name="close" size={16} />
          </Button>
        </div>
      ))}
      {!disabled && (
        <div class="schema-pair">
          <input
            class="input mono"
            aria-label={`${label}: ${t.pairKey}`}
            placeholder={t.pairKey}
            value={key}
            onInput={(event) => (key.value = event.currentTarget.value)}
          />
          <Button
            disabled={key.value.trim() === ""}
            onClick={() => {
              put({ ...value, [key.value.trim()]: "" });
              key.value = "";
            }}
          >
            {t.addPair}
          </Button>
        </div>
      )}
    </div>
  );
}

function jsonOrText(written: string): Json {
  try {
    return JSON.parse(written) as Json;
  } catch {
    return written;
  }
}

/** Whether a text would be another value if it were written without quotes: "12", "true". */
function readsAsJson(text: string): boolean {
  return jsonOrText(text) !== text;
}
