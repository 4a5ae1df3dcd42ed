import type { Signal } from "@preact/signals";
import { useId } from "preact/hooks";

interface Props<T extends string | number> {
  readonly title: string;
  readonly value: Signal<T>;
  readonly options: readonly (readonly [value: T, words: string])[];
}

/** One of a few, side by side. */
export function Choice<T extends string | number>({ title, value, options }: Props<T>) {
  const name = useId();
  return (
    <fieldset class="choice">
      <legend>{title}</legend>
      {options.map(([one, words]) => (
        <label key={one}>
          <input
            type="radio"
            name={name}
            checked={value.value === one}
            onChange={() => (value.value = one)}
          />
          <span>{words}</span>
        </label>
      ))}
    </fieldset>
  );
}
