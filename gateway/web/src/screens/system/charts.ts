/** Series of the charts, from GET /admin/system/history. */

import { withHoles, type Aligned, type Series } from "../../components/chartData";
import { system as t } from "../../texts/en/system";
import type { History } from "./types";

const GIB = 2 ** 30;
/** Devices in a chart at most, so that what models hold has a colour of its own. */
const DEVICES = 3;

function inGib(bytes: readonly (number | null)[]): (number | null)[] {
  return bytes.map((one) => (one === null ? null : one / GIB));
}

/** Memory of devices, and of all models together if they take any, in GiB; `most`: that of the largest device. */
export function memory(history: History): Aligned & { readonly most: number } {
  const devices = history.devices.slice(0, DEVICES);
  const series: Series[] = devices.map((one) => ({
    label: t.usedOf(one.name),
    values: inGib(one.used),
  }));
  if (history.models_memory.some(Boolean))
    series.push({ label: t.models, values: inGib(history.models_memory) });
  const most = Math.max(0, ...devices.map((one) => one.total)) / GIB;
  return { ...withHoles({ times: history.times, series }, history.every), most };
}

/** Seconds that are shown at least, however young the gateway is. */
const SHORTEST = 300;

/** From when to when: all that was asked for, or what there is of it. */
export function spanOf({ times, range }: History): readonly [number, number] {
  const now = times.at(-1) ?? 0;
  const first = Math.min(times[0] ?? now, now - SHORTEST);
  return [Math.max(first, now - range), now];
}

export function speed(history: History): Aligned {
  const series = [
    { label: t.written, values: history.completion_tokens_per_second },
    { label: t.read, values: history.prompt_tokens_per_second },
  ];
  return withHoles({ times: history.times, series }, history.every);
}

export function load(history: History): Aligned {
  const series: Series[] = [{ label: t.running, values: history.running }];
  if (history.waiting.some(Boolean)) series.push({ label: t.waiting, values: history.waiting });
  return withHoles({ times: history.times, series }, history.every);
}
