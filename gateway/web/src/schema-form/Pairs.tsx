import { useSignal } from "@preact/signals";
import { Button } from "../components/Button";
import { Icon } from "../components/Icon";
import { schemaForm as t } from "../texts/en/schemaForm";
import type { Json, JsonObject } from "./json";

interface Props {
  readonly label: string;
  readonly value: JsonObject;
  /** Values are texts; else they are JSON, and what is none is taken as a text. */
  readonly text: boolean;
  readonly readOnly: boolean;
  readonly onChange: (value: Json | undefined) => void;
}

/** An object whose keys are free: names and values in rows. */
export function Pairs({ label, value, text, readOnly, onChange }: Props) {
  const key = useSignal("");
  const put = (next: JsonObject): void =>
    onChange(Object.keys(next).length === 0 ? undefined : next);
  const add = (): void => {
    const name = key.value.trim();
    if (name === "") return;
    if (!Object.hasOwn(value, name)) put({ ...value, [name]: "" });
    key.value = "";
  };
  return (
    <div class="schema-pairs" role="group" aria-label={label}>
      {Object.entries(value).map(([name, inner]) => (
        <div key={name} class="schema-pair">
          <code>{name}</code>
          <input
            class="input mono"
            aria-label={`${label}: ${name}`}
            readOnly={readOnly}
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
          {!readOnly && (
            <Button
              kind="plain"
              label={t.removePair(name)}
              onClick={() =>
                put(Object.fromEntries(Object.entries(value).filter(([other]) => other !== name)))
              }
            >
              <Icon name="close" size={16} />
            </Button>
          )}
        </div>
      ))}
      {readOnly && Object.keys(value).length === 0 && <p class="soft">{t.noPairs}</p>}
      {!readOnly && (
        <div class="schema-pair">
          <input
            class="input mono"
            aria-label={`${label}: ${t.pairKey}`}
            placeholder={t.pairKey}
            value={key}
            onInput={(event) => (key.value = event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key !== "Enter") return;
              event.preventDefault(); // it would save the whole form
              add();
            }}
          />
          <Button disabled={key.value.trim() === ""} onClick={add}>
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
