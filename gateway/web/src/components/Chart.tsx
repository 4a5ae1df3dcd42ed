/**
 * A chart over time: axes with units, a legend in words, and a table behind it.
 *
 *     <Chart title="Memory" unit="GiB" times={times} series={[{ label: "RAM", values }]}
 *       format={(value) => `${value.toFixed(1)} GiB`} />
 *
 * uPlot, which draws it, is fetched when the first chart is shown.
 */

import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type uPlot from "uplot";
import { chart as t } from "../texts/en/chart";
import { extremes, rowsFor, stacked, type Series } from "./chartData";
import { dayAndTime, dayOnly, timeTicks } from "./chartTimes";
import { Table, type Column } from "./Table";
import "./Chart.css";

export type { Series } from "./chartData";

interface Props {
  /** A heading of the third rank, and what screen readers call it. */
  readonly title: string;
  /** What the vertical axis counts: "GiB", "tokens per second". */
  readonly unit: string;
  /** Seconds since 1970, ascending. */
  readonly times: readonly number[];
  /** One to four. */
  readonly series: readonly Series[];
  /** A value with its unit, for the legend and the table. */
  readonly format: (value: number) => string;
  /** A value beside the axis, whose unit stands there already. */
  readonly tick?: (value: number) => string;
  /** "bars" for counts of days, each bar from the one before; lines otherwise. */
  readonly kind?: "lines" | "bars";
  /** Whether values are counts, between whose ticks there are none. */
  readonly whole?: boolean;
  /** Each series on top of those before it. */
  readonly stack?: boolean;
  /** The top of the vertical axis, if it isn't that of the values: all the memory there is. */
  readonly most?: number;
  /** The time that is shown, if it is more than that of the values: [from, to]. */
  readonly span?: readonly [number, number];
  /** Pixels. */
  readonly height?: number;
}

type Maker = typeof uPlot;

/** Series differ by their dashes as well as by their colours. */
const DASHES: readonly number[][] = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
/** Steps between ticks of counts. */
const WHOLE = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9].flatMap((one) => [
  one,
  2 * one,
  5 * one,
]);
/** Rows of the table at most: nobody reads two thousand. */
const ROWS = 96;

let fetched: Promise<Maker> | undefined;

function fetchMaker(): Promise<Maker> {
  fetched ??= import("uplot").then((module) => module.default);
  return fetched;
}

export function Chart(props: Props) {
  const { title, times, series, format } = props;
  const at = useSignal<number | null>(null);
  const place = useDrawn(props, (index) => (at.value = index));
  const empty = times.length === 0;
  const pointed = at.value === null ? undefined : times[at.value];
  return (
    <figure class="chart">
      <figcaption>
        <h3>{title}</h3>
        {pointed !== undefined && <span class="soft">{dayAndTime(new Date(pointed * 1000))}</span>}
        {!empty && <Legend series={series} at={at.value} format={format} />}
      </figcaption>
      {empty ? (
        <p class="chart-empty soft">{t.nothing}</p>
      ) : (
        <>
          <div ref={place} class="chart-place" role="img" aria-label={summary(props)} />
          <details>
            <summary>{t.table}</summary>
            <Behind {...props} />
          </details>
        </>
      )}
    </figure>
  );
}

function summary({ title, series, format }: Props): string {
  const words = (value: number | null): string => (value === null ? t.unknown : format(value));
  return t.summary(
    title,
    series.map(({ label, values }) => {
      const { last, most } = extremes(values);
      return t.ofSeries(label, words(last), words(most));
    }),
  );
}

interface LegendProps {
  readonly series: readonly Series[];
  readonly at: number | null;
  readonly format: (value: number) => string;
}

/** Which line is which, and its value where the pointer is, else the newest. */
function Legend({ series, at, format }: LegendProps) {
  return (
    <ul class="chart-legend">
      {series.map(({ label, values }, index) => {
        const value = at === null ? extremes(values).last : (values[at] ?? null);
        return (
          <li key={label}>
            <svg width="22" height="8" aria-hidden="true" class={`chart-series-${index + 1}`}>
              <path
                d="M0 4h22"
                stroke="currentColor"
                stroke-width="2.5"
                stroke-dasharray={(DASHES[index] ?? []).join(" ")}
              />
            </svg>
            {label} <strong>{value === null ? t.unknown : format(value)}</strong>
          </li>
        );
      })}
    </ul>
  );
}

function Behind({ title, times, series, format, kind }: Props) {
  const columns = useMemo<readonly Column<number>[]>(
    () => [
      {
        head: t.time,
        cell: (row) => {
          const when = new Date((times[row] ?? 0) * 1000);
          return kind === "bars" ? dayOnly(when) : dayAndTime(when);
        },
        sort: (row) => times[row] ?? 0,
      },
      ...series.map(({ label, values }) => ({
        head: label,
        number: true,
        cell: (row: number) => {
          const value = values[row] ?? null;
          return value === null ? "–" : format(value);
        },
        sort: (row: number) => values[row] ?? null,
      })),
    ],
    [times, series, format, kind],
  );
  const rows = rowsFor(times.length, ROWS);
  return <Table title={title} titleHidden columns={columns} rows={rows} rowKey={String} />;
}

// --- drawing ----------------------------------------------------------------------------------

/** Where uPlot draws, anew when what is shown has another form, or the theme has changed. */
function useDrawn(props: Props, onCursor: (index: number | null) => void) {
  const place = useRef<HTMLDivElement>(null);
  const drawn = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const maker = useSignal<Maker | null>(null);
  const theme = useTheme();
  const { series, kind, stack, unit, times } = props;
  const form = JSON.stringify([
    series.map((one) => one.label),
    kind,
    stack,
    unit,
    times.length > 0,
  ]);

  useEffect(() => {
    let here = true;
    fetchMaker().then(
      (made) => here && (maker.value = made),
      () => undefined, // the table is there, and says the same
    );
    return () => {
      here = false;
    };
  }, []);

  useEffect(() => {
    const element = place.current;
    const Made = maker.value;
    if (!element || !Made) return;
    const chart = new Made(
      optionsOf(Made, latest, element, onCursor),
      dataOf(latest.current),
      element,
    );
    drawn.current = chart;
    const observer = new ResizeObserver(() => {
      const width = element.clientWidth;
      if (width > 0 && width !== chart.width) chart.setSize({ width, height: chart.height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      drawn.current = null;
    };
  }, [maker.value, form, theme]);

  useEffect(() => drawn.current?.setData(dataOf(latest.current)), [times, series, props.span]);
  return place;
}

/** Changes with the colours. */
function useTheme(): number {
  const version = useSignal(0);
  useEffect(() => {
    const changed = (): void => void (version.value += 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", changed);
    const observer = new MutationObserver(changed);
    observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      dark.removeEventListener("change", changed);
      observer.disconnect();
    };
  }, []);
  return version.value;
}

/** A colour of tokens.css as a canvas takes it: the one of the two that counts now. */
function colourOf(element: HTMLElement, name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  element.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function dataOf({ times, series, stack }: Props): uPlot.AlignedData {
  const values = stack ? [...stacked(series)].reverse() : series.map((one) => one.values);
  return [[...times], ...values.map((one) => [...one])];
}

function optionsOf(
  Made: Maker,
  latest: { readonly current: Props },
  element: HTMLElement,
  onCursor: (index: number | null) => void,
): uPlot.Options {
  const {
    series,
    kind = "lines",
    stack = false,
    whole = false,
    unit,
    height = 200,
  } = latest.current;
  const style = getComputedStyle(element);
  const colour = (name: string): string => colourOf(element, name);
  const text = colour("--text-soft");
  const grid = { stroke: colour("--border"), width: 1 };
  const font = `12px ${style.fontFamily}`;
  const bars = Made.paths.bars?.({ size: [0.7, 40], gap: 1 });
  const drawnSeries = series.map((one, index): uPlot.Series => {
    const stroke = colour(`--series-${index + 1}`);
    return {
      label: one.label,
      stroke,
      width: kind === "bars" ? 0 : 2,
      points: { show: false },
      ...(kind === "bars"
        ? { fill: stroke, ...(bars ? { paths: bars } : {}) }
        : { dash: DASHES[index] ?? [] }),
    };
  });
  return {
    width: Math.max(element.clientWidth, 100),
    height,
    padding: [8, null, null, null],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: kind === "lines" } },
    scales: {
      x: {
        range: (_, least, most) => {
          const { span } = latest.current;
          if (span) return [span[0], span[1]];
          const edge = kind === "bars" ? 43_200 : least === most ? 60 : 0;
          return [least - edge, most + edge];
        },
      },
      y: {
        range: (_, _least, most) => [0, Math.max(latest.current.most ?? 0, most * 1.05, 1)],
      },
    },
    axes: [
      {
        stroke: text,
        grid: { show: false },
        ticks: grid,
        font,
        size: 32,
        space: 48,
        ...(kind === "bars" ? { incrs: [1, 2, 7, 14, 28].map((days) => days * 86_400) } : {}),
        values: (_, splits, _axis, _space, every) => timeTicks(splits, every),
      },
      {
        stroke: text,
        grid,
        ticks: { show: false },
        font,
        label: unit,
        labelFont: font,
        labelSize: 18,
        size: element.clientWidth < 400 ? 44 : 52,
        ...(whole ? { incrs: WHOLE } : {}),
        values: (_, splits) =>
          splits.map((one) => (latest.current.tick ?? String)(Number(one.toPrecision(6)))),
      },
    ],
    series: [{}, ...(stack ? drawnSeries.reverse() : drawnSeries)],
    hooks: {
      setCursor: [(chart) => onCursor(chart.cursor.idx ?? null)],
    },
  };
}
