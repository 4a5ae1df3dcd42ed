interface Props {
  /** What it measures, for screen readers. */
  readonly label: string;
  readonly value: number;
  readonly max: number;
  /** "18.2 of 24.0 GiB" */
  readonly text: string;
}

/** A bar of a part of a whole. */
export function Meter({ label, value, max, text }: Props) {
  const share = max > 0 ? Math.min(100, (100 * value) / max) : 0;
  return (
    <div
      class="meter"
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={max}
      aria-valuenow={Math.min(value, max)}
      aria-valuetext={text}
    >
      <div style={{ width: `${share}%` }} />
    </div>
  );
}
