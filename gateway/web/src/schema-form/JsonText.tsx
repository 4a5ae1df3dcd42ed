import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { schemaForm as t } from "../texts/en/schemaForm";
import type { Json } from "./json";

export interface PartProps {
  readonly common: {
    readonly id: string;
    readonly readOnly: boolean;
    readonly "aria-describedby"?: string | undefined;
    readonly "aria-invalid"?: "true" | undefined;
  };
  readonly value: Json | undefined;
  readonly onChange: (value: Json | undefined) => void;
}

interface Props extends PartProps {
  /** Its name, where no label stands before it. */
  readonly label?: string | undefined;
  /** What is wrong with JSON that reads well; `null`: nothing. */
  readonly refuse?: ((value: Json | undefined) => string | null) | undefined;
  readonly onUnreadable?: ((unreadable: boolean) => void) | undefined;
}

/** Any JSON; as long as it is none, nothing changes. */
export function JsonText({ common, label, value, onChange, refuse, onUnreadable }: Props) {
  const written = useSignal<string | null>(null);
  const wrong = useSignal<string | null>(null);
  const text = written.value ?? (value === undefined ? "" : JSON.stringify(value, null, 2));
  const unreadable = wrong.value !== null;
  useEffect(() => {
    onUnreadable?.(unreadable);
  }, [unreadable]);
  useEffect(() => () => onUnreadable?.(false), []);

  const write = (now: string): void => {
    written.value = now;
    try {
      const read = now.trim() === "" ? undefined : (JSON.parse(now) as Json);
      wrong.value = refuse?.(read) ?? null;
      if (wrong.value === null) onChange(read);
    } catch (error) {
      wrong.value = t.notJson(error instanceof Error ? error.message : "");
    }
  };
  return (
    <>
      <textarea
        {...common}
        aria-label={label}
        class="input mono"
        rows={Math.min(32, Math.max(2, text.split("\n").length))}
        spellcheck={false}
        aria-invalid={unreadable ? "true" : common["aria-invalid"]}
        value={text}
        onInput={(event) => write(event.currentTarget.value)}
        onBlur={() => {
          if (!unreadable) written.value = null;
        }}
      />
      {unreadable && <p class="schema-problem">{wrong}</p>}
    </>
  );
}
