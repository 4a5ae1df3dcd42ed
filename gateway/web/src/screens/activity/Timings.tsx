import { duration } from "../../format";
import { activity as t } from "../../texts/en/activity";
import { PARTS, segmentsOf, type Timings } from "./requests";

/** Where the time of a request went, as one bar; in words on hover and for screen readers. */
export function TimingsBar({ timings }: { readonly timings: Timings }) {
  const words = inWords(timings);
  return (
    <div class="timings" role="img" aria-label={words} title={words}>
      {segmentsOf(timings).map(({ part, share }) => (
        <span key={part} class={part} style={{ width: `${share}%` }} />
      ))}
    </div>
  );
}

/** "Queue 0.2 s, Prompt 0.1 s, Answer 3.0 s". */
export function inWords(timings: Timings): string {
  const together = timings.prefill === null && timings.generation !== null;
  return (
    segmentsOf(timings)
      .map(({ part, seconds }) => {
        const name = part === "generation" && together ? t.parts.together : t.parts[part];
        return `${name} ${duration(seconds)}`;
      })
      .join(", ") || duration(0)
  );
}

export function Legend() {
  return (
    <ul class="legend" aria-label={t.legend.name}>
      {PARTS.map((part) => (
        <li key={part}>
          <span class={`swatch ${part}`} aria-hidden="true" /> {t.legend[part]}
        </li>
      ))}
    </ul>
  );
}
