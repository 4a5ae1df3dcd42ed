import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { count } from "../../format";
import { usage as t } from "../../texts/en/usage";
import { short, ticks, type Measure, type Series } from "./totals";

const HEIGHT = 260;
const LEFT = 52;
const RIGHT = 4;
const TOP = 30;
const BOTTOM = 40;
/** Units of width that the name of a day takes. */
const DAY_WIDTH = 68;

interface Props {
  readonly title: string;
  readonly days: readonly string[];
  readonly series: readonly Series[];
  readonly measure: Measure;
}

/**
 * Bars that stand on each other, one for each day.
 *
 * As SVG: it takes its colours from the style sheets, light or dark, and costs no library.
 */
export function Chart({ title, days, series, measure }: Props) {
  const width = useSignal(720);
  const frame = useRef<HTMLElement>(null);
  useEffect(() => {
    const element = frame.current;
    if (!element) return;
    const observer = new ResizeObserver(() => {
      width.value = Math.max(240, element.clientWidth);
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const sums = days.map((_, index) =>
    series.reduce((sum, one) => sum + (one.values[index] ?? 0), 0),
  );
  const marks = ticks(Math.max(...sums));
  const top = marks.at(-1) ?? 1;
  const room = HEIGHT - TOP - BOTTOM;
  const y = (value: number): number => TOP + room - (room * value) / top;
  const slot = (width.value - LEFT - RIGHT) / days.length;
  const bar = Math.max(1, Math.min(40, slot * 0.72));
  const every = Math.ceil(DAY_WIDTH / slot);
  return (
    <figure class="chart" ref={frame}>
      <svg width={width.value} height={HEIGHT} role="img" aria-label={title}>
        <text class="unit" x={0} y={12}>
          {t.axis[measure]}
        </text>
        {marks.map((value) => (
          <g key={value}>
            <line class="grid" x1={LEFT} x2={width.value - RIGHT} y1={y(value)} y2={y(value)} />
            <text x={LEFT - 8} y={y(value) + 4} text-anchor="end">
              {short(value)}
            </text>
          </g>
        ))}
        {days.map((day, index) => (
          <g key={day}>
            <Bar
              day={day}
              index={index}
              series={series}
              x={LEFT + slot * index + (slot - bar) / 2}
              width={bar}
              y={y}
            />
            {(days.length - 1 - index) % every === 0 && (
              <text
                x={Math.min(LEFT + slot * (index + 0.5), width.value - RIGHT - 22)}
                y={HEIGHT - 22}
                text-anchor="middle"
              >
                {dayName(day)}
              </text>
            )}
          </g>
        ))}
        <text class="unit" x={(LEFT + width.value) / 2} y={HEIGHT - 4} text-anchor="middle">
          {t.axisDay}
        </text>
      </svg>
      <figcaption>
        <ul class="legend" aria-label={t.legend}>
          {series.map((one, index) => (
            <li key={index}>
              <span class={`swatch series-${index + 1}`} aria-hidden="true" /> {one.name}
            </li>
          ))}
        </ul>
      </figcaption>
    </figure>
  );
}

interface BarProps {
  readonly day: string;
  readonly index: number;
  readonly series: readonly Series[];
  readonly x: number;
  readonly width: number;
  readonly y: (value: number) => number;
}

function Bar({ day, index, series, x, width, y }: BarProps) {
  let below = 0;
  return (
    <>
      {series.map((one, place) => {
        const value = one.values[index] ?? 0;
        if (value === 0) return null;
        const from = below;
        below += value;
        return (
          <rect
            key={place}
            class={`series-${place + 1}`}
            x={x}
            width={width}
            y={y(below)}
            height={Math.max(1, y(from) - y(below))}
          >
            <title>{t.bar(day, one.name, count(value))}</title>
          </rect>
        );
      })}
    </>
  );
}

const DAY = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", timeZone: "UTC" });

function dayName(day: string): string {
  return DAY.format(new Date(`${day}T00:00:00Z`));
}
