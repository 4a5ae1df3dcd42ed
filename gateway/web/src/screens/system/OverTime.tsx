import { useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { Button } from "../../components/Button";
import { Chart } from "../../components/Chart";
import { ErrorNote } from "../../components/ErrorNote";
import { size } from "../../format";
import { usePolled } from "../../gateway/polled";
import { actions } from "../../texts/en/common";
import { system as t } from "../../texts/en/system";
import { load, memory, spanOf, speed } from "./charts";
import type { History } from "./types";

/** How far back, and seconds between two looks. */
const RANGES = { "1h": 10, "24h": 60, "7d": 300 } as const;
type Range = keyof typeof RANGES;
const isRange = (text: string): text is Range => text in RANGES;

const inGib = (value: number): string => size(value * 2 ** 30);

/** Memory, speed and load of the last hour, day or week. */
export function OverTime() {
  const range = useSignal<Range>("1h");
  const { value, error, again } = usePolled<History>(
    `/admin/system/history?range=${range.value}`,
    RANGES[range.value],
  );
  const history = value.value;
  return (
    <section class="system-part" aria-labelledby="system-over-time">
      <div class="system-head">
        <h2 id="system-over-time">{t.overTime}</h2>
        <label>
          <span class="visually-hidden">{t.range}</span>
          <select
            class="input"
            value={range.value}
            onChange={({ currentTarget }) => {
              if (isRange(currentTarget.value)) range.value = currentTarget.value;
            }}
          >
            {Object.keys(RANGES)
              .filter(isRange)
              .map((one) => (
                <option key={one} value={one}>
                  {t.ranges[one]}
                </option>
              ))}
          </select>
        </label>
      </div>
      {error.value !== null && (
        <ErrorNote error={error.value}>
          <p>
            <Button onClick={again}>{actions.tryAgain}</Button>
          </p>
        </ErrorNote>
      )}
      {history === null ? (
        error.value === null && <p class="soft">{actions.loading}</p>
      ) : (
        <Charts history={history} />
      )}
    </section>
  );
}

function Charts({ history }: { readonly history: History }) {
  const taken = useMemo(() => memory(history), [history]);
  const speeds = useMemo(() => speed(history), [history]);
  const requests = useMemo(() => load(history), [history]);
  const span = useMemo(() => spanOf(history), [history]);
  return (
    <div class="system-charts">
      <Chart title={t.memoryOverTime} unit={t.gib} format={inGib} span={span} {...taken} />
      <Chart title={t.speed} unit={t.perSecond} format={t.tokens} span={span} {...speeds} />
      <Chart title={t.load} unit={t.requests} format={t.number} whole span={span} {...requests} />
    </div>
  );
}
