import { useSignal } from "@preact/signals";
import { schemaForm as t } from "../texts/en/schemaForm";
import { isObject } from "./json";
import { JsonText, type PartProps } from "./JsonText";
import { Pairs } from "./Pairs";
import { textOf, valueOf } from "./schema";
import type { FieldProps } from "./SchemaField";

type Props = FieldProps & { readonly id: string; readonly invalid: boolean };

/** What a value is written into or chosen with, by the kind of its field. */
export function Control(props: Props) {
  const { field, label, value, onChange, onUnreadable, readOnly = false, id, invalid } = props;
  const { kind } = field;
  const described = {
    id,
    "aria-describedby": `${id}-help`,
    "aria-invalid": invalid ? ("true" as const) : undefined,
  };
  const common = { ...described, readOnly };
  switch (kind.kind) {
    case "flag":
      return (
        <select
          {...described}
          disabled={readOnly}
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
          {...described}
          disabled={readOnly}
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
    case "text":
      return <Written {...props} common={common} />;
    case "lines":
      return <Lines common={common} value={value} onChange={onChange} />;
    case "map":
      return (
        <Pairs
          label={label.title}
          value={isObject(value) ? value : {}}
          text={kind.text}
          readOnly={readOnly}
          onChange={onChange}
        />
      );
    case "group":
    case "json":
      return (
        <JsonText common={common} value={value} onChange={onChange} onUnreadable={onUnreadable} />
      );
  }
}

/** A text, a number, or one of a few words. */
function Written({ field, label, value, onChange, id, common }: Props & Pick<PartProps, "common">) {
  const { kind, fallback } = field;
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
  const usual =
    fallback === undefined || fallback === null ? undefined : t.usually(String(fallback));
  const words = kind.kind === "mixed" ? kind.words.concat(kind.flag ? ["true", "false"] : []) : [];
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
        placeholder={label.unset ?? usual}
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
      value={text}
      onInput={(event) => {
        written.value = event.currentTarget.value;
        onChange(valueOf(event.currentTarget.value, kind));
      }}
      onBlur={() => (written.value = null)}
    />
  );
}
