import { states as t } from "../texts/en/common";

export type StateName = keyof typeof t;

interface Props {
  readonly state: StateName;
  /** 0 to 100, while it loads. */
  readonly percent?: number | null | undefined;
  /** Other words than the state's own. */
  readonly words?: string | undefined;
}

const RING = 2 * Math.PI * 5;

/** A state by shape, colour and word: filled dot, filling ring, hollow dot, cross, arrow. */
export function State({ state, percent, words }: Props) {
  const share = percent == null ? "" : ` ${shareOf(percent)}`;
  return (
    <span class={`state ${state}`}>
      <svg viewBox="0 0 14 14" aria-hidden="true" fill="none" stroke="currentColor">
        {mark(state, percent ?? 25)}
      </svg>
      <span>
        {words ?? t[state]}
        {share}
      </span>
    </span>
  );
}

/** "40%". */
export function shareOf(percent: number): string {
  return `${Math.round(percent)}%`;
}

function mark(state: StateName, percent: number) {
  switch (state) {
    case "ready":
      return <circle cx="7" cy="7" r="5" fill="currentColor" />;
    case "loading":
      return (
        <g stroke-width="2.5" transform="rotate(-90 7 7)">
          <circle cx="7" cy="7" r="5" opacity="0.25" />
          <circle cx="7" cy="7" r="5" stroke-dasharray={`${(RING * percent) / 100} ${RING}`} />
        </g>
      );
    case "failed":
      return <path d="M3 3l8 8M11 3l-8 8" stroke-width="2.2" />;
    case "remote":
      return <path d="M3 11L11 3M5 3h6v6" stroke-width="2" />;
    case "draining":
    case "waiting":
    case "unloaded":
      return <circle cx="7" cy="7" r="4.5" stroke-width="1.8" />;
  }
}

/** The state's name for what GET /v1/models and GET /admin/status call it. */
export function stateNamed(value: string): StateName {
  switch (value) {
    case "ready":
    case "loaded":
    case "sleeping":
      return "ready";
    case "loading":
    case "starting":
      return "loading";
    case "failed":
    case "broken":
      return "failed";
    case "remote":
      return "remote";
    case "draining":
    case "stopping":
      return "draining";
    case "waiting":
    case "queued":
      return "waiting";
    default:
      return "unloaded";
  }
}
