/**
 * A log that is followed: the newest 10,000 lines, of which only those in sight are in the page.
 *
 *     <LogView title="Log of Qwen3-8B" source={source} />
 *
 * `source` gives lines (`logOf("/admin/models/NAME/log")` of gateway/logs.ts does); it must stay the
 * same function from one rendering to the next (`useMemo`), since another one begins another log.
 * When it ends or fails, it is asked again after a pause that grows, but not after an answer of 4xx.
 */

import { useSignal } from "@preact/signals";
import { useEffect, useId, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import type { LogSource } from "../gateway/logs";
import { actions } from "../texts/en/common";
import { log as t } from "../texts/en/log";
import { Button } from "./Button";
import { CopyButton } from "./CopyButton";
import { ErrorNote } from "./ErrorNote";
import { Icon } from "./Icon";
import { filtered, LEVELS, lineAt, pieces, topsOf, type Level, type Line } from "./logLines";
import { useLog } from "./useLog";
import "./LogView.css";

interface Props {
  /** What it is a log of, for screen readers. */
  readonly title: string;
  readonly source: LogSource;
  /** Said in place of lines as long as there are none. */
  readonly empty?: string;
}

/** Pixels of a row, as in LogView.css. */
const ROW = 20;
/** Rows beyond what is in sight, above and below. */
const MORE = 20;
/** Characters by which the width of one is measured: few enough to fit on a phone. */
const PROBE = 20;
/** Pixels: a place as narrow as a phone wraps its lines without being asked. */
const NARROW = 640;

export function LogView({ title, source, empty = t.empty }: Props) {
  const attempt = useSignal(0);
  const { buffer, version, open, error } = useLog(source, attempt.value);
  const search = useSignal("");
  const level = useSignal<Level>("debug");
  const wrap = useSignal<boolean | null>(null);
  const paused = useSignal<{ readonly lines: readonly Line[]; readonly total: number } | null>(
    null,
  );
  const box = useBox();
  const id = useId();

  const wraps = wrap.value ?? (box.width.value > 0 && box.width.value < NARROW);
  const seen = version.value;
  const lines = useMemo(
    () =>
      paused.value
        ? filtered(paused.value.lines, search.value, level.value)
        : buffer.matching(search.value, level.value),
    [buffer, seen, search.value, level.value, paused.value],
  );
  const all = paused.value?.lines.length ?? buffer.kept;
  const columns = wraps ? box.columns.value : null;
  const tops = useMemo(() => topsOf(lines, columns), [lines, columns]);

  // Who is at the end stays there; who reads further up is left alone.
  const atEnd = useSignal(true);
  useLayoutEffect(() => {
    const element = box.element.current;
    if (element && atEnd.value) element.scrollTop = element.scrollHeight;
  }, [tops, atEnd.value]);

  const pause = (): void => {
    paused.value = paused.value
      ? null
      : { lines: buffer.matching("", "debug"), total: buffer.total };
  };
  const first = lineAt(tops, Math.max(box.top.value / ROW - MORE, 0));
  const last = lineAt(tops, (box.top.value + box.height.value) / ROW + MORE);
  const shown = lines.slice(first, last + 1);
  const widest = useMemo(
    () => (wraps ? 0 : lines.reduce((most, one) => Math.max(most, one.text.length), 0)),
    [lines, wraps],
  );
  return (
    <div class="log-view">
      <div class="log-tools">
        <label class="log-search">
          <span class="visually-hidden">{t.search}</span>
          <Icon name="search" size={16} />
          <input
            class="input"
            type="search"
            placeholder={t.search}
            value={search.value}
            onInput={(event) => (search.value = event.currentTarget.value)}
          />
        </label>
        <label class="log-level">
          <span class="visually-hidden">{t.level}</span>
          <select
            class="input"
            value={level.value}
            onChange={(event) =>
              (level.value = LEVELS.find((one) => one === event.currentTarget.value) ?? "debug")
            }
          >
            {LEVELS.map((one) => (
              <option key={one} value={one}>
                {t.levels[one]}
              </option>
            ))}
          </select>
        </label>
        <label class="log-wrap">
          <input
            type="checkbox"
            checked={wraps}
            onChange={(event) => (wrap.value = event.currentTarget.checked)}
          />
          {t.wrap}
        </label>
        <Button onClick={pause} aria-pressed={paused.value !== null}>
          <Icon name={paused.value ? "play" : "pause"} size={16} />
          <span class="log-pause">{paused.value ? t.goOn : t.pause}</span>
        </Button>
        <CopyButton text={() => lines.map((one) => one.text).join("\n")} label={t.copyAll} />
      </div>
      {error.value !== null && (
        <ErrorNote error={error.value.reason}>
          {error.value.final ? (
            <p>
              <Button onClick={() => (attempt.value += 1)}>{actions.tryAgain}</Button>
            </p>
          ) : (
            <p class="soft">{t.broken}</p>
          )}
        </ErrorNote>
      )}
      <div class="log-frame">
        <div
          ref={box.element}
          class={wraps ? "log-lines wrapped" : "log-lines"}
          role="region"
          aria-label={title}
          aria-describedby={id}
          tabIndex={0}
          onScroll={(event) => {
            const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
            box.top.value = scrollTop;
            atEnd.value = scrollTop + clientHeight >= scrollHeight - ROW;
          }}
        >
          <span ref={box.probe} class="log-probe" aria-hidden="true">
            {"0".repeat(PROBE)}
          </span>
          {lines.length === 0 ? (
            <p class="log-none soft">{nothing(open.value, all, empty)}</p>
          ) : (
            <div
              class="log-all"
              style={{
                height: `${(tops[lines.length] ?? 0) * ROW}px`,
                minWidth: wraps ? "0" : `${widest}ch`,
              }}
            >
              {shown.map((line, index) => (
                <Row
                  key={line.number}
                  line={line}
                  top={(tops[first + index] ?? 0) * ROW}
                  search={search.value}
                />
              ))}
            </div>
          )}
        </div>
        {!atEnd.value && (
          <Button class="log-to-end" onClick={() => (atEnd.value = true)}>
            <Icon name="down" size={16} /> {t.toEnd}
          </Button>
        )}
      </div>
      <p class="log-foot soft" id={id}>
        {t.lines(lines.length, all)}
        {paused.value && (
          <strong>{t.waiting(Math.max(buffer.total - paused.value.total, 0))}</strong>
        )}
      </p>
    </div>
  );
}

function nothing(open: boolean, all: number, empty: string): string {
  if (all > 0) return t.noMatch;
  return open ? empty : t.connecting;
}

interface RowProps {
  readonly line: Line;
  readonly top: number;
  readonly search: string;
}

function Row({ line, top, search }: RowProps) {
  return (
    <div class={`log-line ${line.level}`} style={{ top: `${top}px` }}>
      {pieces(line.text, search).map((piece, index) =>
        index % 2 ? <mark key={index}>{piece}</mark> : piece,
      )}
    </div>
  );
}

/** The place of the lines: how much of it is in sight, and how many characters fit beside each
 * other. */
function useBox() {
  const element = useRef<HTMLDivElement>(null);
  const probe = useRef<HTMLSpanElement>(null);
  const top = useSignal(0);
  const height = useSignal(0);
  const width = useSignal(0);
  const columns = useSignal(80);
  useEffect(() => {
    const box = element.current;
    if (!box) return;
    const measure = (): void => {
      height.value = box.clientHeight;
      width.value = box.clientWidth;
      const one = (probe.current?.getBoundingClientRect().width ?? 0) / PROBE;
      const { paddingLeft, paddingRight } = getComputedStyle(box);
      const inside = box.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
      if (one > 0) columns.value = Math.max(Math.floor(inside / one), 1);
    };
    const observer = new ResizeObserver(measure);
    observer.observe(box);
    measure();
    return () => observer.disconnect();
  }, []);
  return { element, probe, top, height, width, columns };
}
