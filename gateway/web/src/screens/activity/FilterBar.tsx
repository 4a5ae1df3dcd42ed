import { useSignal } from "@preact/signals";
import { useEffect, useId } from "preact/hooks";
import { choosable } from "../../gateway/live";
import { askJson } from "../../gateway/request";
import { activity } from "../../texts/en/activity";
import { filters } from "./feed";
import type { Filters } from "./requests";

const t = activity.filters;

interface KeyOption {
  readonly id: string;
  readonly name: string;
  readonly state: string;
}

const STATUSES: readonly Option[] = [
  ["", t.anyStatus],
  ["2xx", t.good],
  ["499", t.left],
  ["4xx", t.cancelled],
  ["5xx", t.failed],
];
const SLOW: readonly Option[] = [
  ["", t.anySlow],
  ["1", t.slower("1 s")],
  ["5", t.slower("5 s")],
  ["30", t.slower("30 s")],
  ["120", t.slower("2 min")],
];
const PLACES: readonly Option[] = [
  ["", t.anyPlace],
  ["slot", t.slot],
  ["disk", t.disk],
  ["none", t.nowhere],
];

export function FilterBar() {
  const keys = useSignal<readonly KeyOption[]>([]);
  useEffect(() => {
    const control = new AbortController();
    askJson<{ keys: readonly KeyOption[] }>("/admin/keys", { signal: control.signal }).then(
      (found) => (keys.value = found.keys),
      () => undefined, // without them one can still choose by the rest
    );
    return () => control.abort();
  }, []);
  return (
    <fieldset class="filters">
      <legend class="visually-hidden">{t.name}</legend>
      <Choice
        name="key"
        label={t.key}
        options={[
          ["", t.anyKey],
          ...keys.value.map(({ id, name, state }): Option => [
            id,
            state === "revoked" ? t.revoked(name) : name,
          ]),
        ]}
      />
      <Choice
        name="model"
        label={t.model}
        options={[["", t.anyModel], ...choosable.value.map(({ id }): Option => [id, id])]}
      />
      <Choice name="status" label={t.status} options={STATUSES} />
      <Choice name="slow" label={t.slow} options={SLOW} />
      <Choice name="cached_from" label={t.cached} options={PLACES} />
    </fieldset>
  );
}

type Option = readonly [value: string, words: string];

interface Props {
  readonly name: keyof Filters;
  readonly label: string;
  readonly options: readonly Option[];
}

function Choice({ name, label, options }: Props) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select
        id={id}
        class="input"
        value={filters.value[name]}
        onChange={(event) =>
          (filters.value = { ...filters.value, [name]: event.currentTarget.value })
        }
      >
        {options.map(([value, words]) => (
          <option key={value} value={value}>
            {words}
          </option>
        ))}
      </select>
    </div>
  );
}
