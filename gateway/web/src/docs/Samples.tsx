import { signal } from "@preact/signals";
import { CopyButton } from "../components/CopyButton";
import { docs as t } from "../texts/en/docs";
import type { Sample } from "./document";

/** One choice for the whole page: who reads Python here does so everywhere. */
const language = signal("curl");

interface Props {
  /** The operation: its method and path. */
  readonly of: string;
  readonly samples: readonly Sample[];
}

/** The code of an operation, in the language that was chosen last. */
export function Samples({ of, samples }: Props) {
  const shown = samples.find((one) => one.label === language.value) ?? samples[0];
  if (!shown) return null;
  return (
    <section class="samples" aria-label={t.codeOf(of)}>
      <div class="samples-head">
        <h4>{t.code}</h4>
        <div role="group" aria-label={t.languages}>
          {samples.map((one) => (
            <button
              key={one.label}
              type="button"
              aria-pressed={one === shown}
              onClick={() => (language.value = one.label)}
            >
              {one.label}
            </button>
          ))}
        </div>
        <CopyButton text={shown.source} />
      </div>
      <pre tabIndex={0} role="region" aria-label={t.codeIn(of, shown.label)}>
        <code>{shown.source}</code>
      </pre>
    </section>
  );
}
