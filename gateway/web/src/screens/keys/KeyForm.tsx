/** The form of a key: every field that the API has, with units. */

import { useSignal } from "@preact/signals";
import { useId } from "preact/hooks";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { models as listed } from "../../gateway/live";
import { actions } from "../../texts/en/common";
import { keys as t, limitWords } from "../../texts/en/keys";
import { fieldsOf, LIMITS, type Fields, type Key } from "./fields";

const f = t.fields;

interface Props {
  /** The key to change; `null` makes a new one. */
  readonly of: Key | null;
  readonly action: string;
  /** Throws what the gateway answers. */
  readonly onSave: (fields: Fields) => Promise<void>;
  readonly onClose: () => void;
}

export function KeyForm({ of, action, onSave, onClose }: Props) {
  const fields = useSignal<Fields>(fieldsOf(of));
  const error = useSignal<unknown>(null);
  const busy = useSignal(false);
  const limited = useSignal(Object.values(fields.value.limits).some(Boolean));
  const set = (change: Partial<Fields>): void =>
    void (fields.value = { ...fields.value, ...change });
  const now = fields.value;
  const all = listed.value ?? [];
  const personalities = [...new Set(all.flatMap((one) => one.personalities ?? []))].sort();
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    busy.value = true;
    error.value = null;
    await onSave(now).catch((reason: unknown) => (error.value = reason));
    busy.value = false;
  };
  return (
    <form class="key-form" onSubmit={(event) => void submit(event)}>
      <div class="key-names">
        <label class="field">
          {f.name}
          <input
            class="input"
            required
            maxLength={100}
            value={now.name}
            onInput={(event) => set({ name: event.currentTarget.value })}
          />
          <span class="hint">{f.nameHint}</span>
        </label>
        <label class="field">
          {f.description}
          <input
            class="input"
            maxLength={1000}
            value={now.description}
            onInput={(event) => set({ description: event.currentTarget.value })}
          />
        </label>
      </div>
      <label class="key-check">
        <input
          type="checkbox"
          checked={now.admin}
          // The one allows everything, the other hardly anything.
          onChange={({ currentTarget: { checked } }) =>
            set(checked ? { admin: true, metrics: false } : { admin: false })
          }
        />
        {f.admin}
      </label>
      <label class="key-check">
        <input
          type="checkbox"
          checked={now.metrics}
          disabled={now.admin}
          onChange={(event) => set({ metrics: event.currentTarget.checked })}
        />
        {f.metrics}
      </label>
      <Expiry fields={now} isNew={of === null} set={set} />
      {!now.metrics && (
        <>
          <Names
            legend={f.models}
            names={all.filter((one) => one.parent === undefined).map((one) => one.id)}
            chosen={now.models}
            onChange={(models) => set({ models })}
          />
          <Names
            legend={f.personalities}
            names={personalities}
            chosen={now.personalities}
            onChange={(chosen) => set({ personalities: chosen })}
          />
          <label class="field">
            {f.defaultPersonality}
            <select
              class="input"
              value={now.defaultPersonality}
              onChange={(event) => set({ defaultPersonality: event.currentTarget.value })}
            >
              <option value="">{f.noDefault}</option>
              {(now.personalities ?? personalities).map((one) => (
                <option key={one} value={one}>
                  {one}
                </option>
              ))}
            </select>
          </label>
        </>
      )}
      <details
        class="key-fold"
        open={limited.value}
        onToggle={(event) => (limited.value = event.currentTarget.open)}
        // What is wrong in there has to be seen.
        onInvalidCapture={() => (limited.value = true)}
      >
        <summary>{f.limits}</summary>
        <p class="soft">{f.limitsHint}</p>
        <div class="key-limits">
          {LIMITS.map((name) => (
            <label key={name} class="field">
              {limitWords[name]?.field}
              <input
                class="input"
                type="number"
                min={1}
                step={1}
                value={now.limits[name]}
                onInput={(event) =>
                  set({ limits: { ...now.limits, [name]: event.currentTarget.value } })
                }
              />
            </label>
          ))}
        </div>
      </details>
      {error.value !== null && <ErrorNote error={error.value} />}
      <div class="actions">
        <Button onClick={onClose}>{actions.cancel}</Button>
        <Button kind="primary" type="submit" disabled={busy.value}>
          {action}
        </Button>
      </div>
    </form>
  );
}

interface ExpiryProps {
  readonly fields: Fields;
  readonly isNew: boolean;
  readonly set: (change: Partial<Fields>) => void;
}

function Expiry({ fields, isNew, set }: ExpiryProps) {
  const words = Object.entries(t.expiry).filter(([word]) => !isNew || word !== "keep");
  return (
    <div class="key-limits">
      <label class="field">
        {f.expires}
        <select
          class="input"
          value={fields.expiry}
          onChange={(event) => set({ expiry: event.currentTarget.value })}
        >
          {words.map(([word, text]) => (
            <option key={word} value={word}>
              {text}
            </option>
          ))}
        </select>
      </label>
      {fields.expiry === "date" && (
        <label class="field">
          {t.expiryDate}
          <input
            class="input"
            type="date"
            required
            min={new Date().toISOString().slice(0, 10)}
            value={fields.date}
            onInput={(event) => set({ date: event.currentTarget.value })}
          />
        </label>
      )}
    </div>
  );
}

interface NamesProps {
  readonly legend: string;
  readonly names: readonly string[];
  readonly chosen: readonly string[] | null;
  readonly onChange: (chosen: readonly string[] | null) => void;
}

/** All of them, or those that are ticked. */
function Names({ legend, names, chosen, onChange }: NamesProps) {
  const group = useId();
  // What a key may use may have gone from models.json.
  const shown = [...new Set([...names, ...(chosen ?? [])])];
  return (
    <fieldset>
      <legend>{legend}</legend>
      <div class="key-choices">
        <label>
          <input
            type="radio"
            name={group}
            checked={chosen === null}
            onChange={() => onChange(null)}
          />{" "}
          {f.all}
        </label>
        <label>
          <input
            type="radio"
            name={group}
            checked={chosen !== null}
            onChange={() => onChange([])}
          />{" "}
          {f.some}
        </label>
      </div>
      {chosen !== null && (
        <div class="key-choices">
          {shown.map((name) => (
            <label key={name}>
              <input
                type="checkbox"
                checked={chosen.includes(name)}
                onChange={(event) =>
                  onChange(
                    event.currentTarget.checked
                      ? [...chosen, name]
                      : chosen.filter((one) => one !== name),
                  )
                }
              />{" "}
              {name}
            </label>
          ))}
        </div>
      )}
    </fieldset>
  );
}
