/** What a device's memory is made up of. Pure. */

import type { Device } from "../../gateway/types";
import type { LiveModel } from "./facts";

export interface Part {
  /** A model's name, or what the rest is. */
  readonly kind: "model" | "others" | "free";
  readonly name: string;
  readonly bytes: number;
  /** 0 to 100, of the device. */
  readonly share: number;
}

/**
 * The parts of `device`, models first, largest first; together they are the whole of it.
 *
 * A model that is still being loaded counts with what it will take, which may not be gone from
 * the free memory yet; and llama.cpp's files may be mapped, and so count as free.
 */
export function partsOf(device: Device, models: readonly LiveModel[]): readonly Part[] {
  const { total } = device;
  if (total <= 0) return [];
  const held = models
    .map((one) => ({ name: one.name, bytes: one.memory_on?.[device.name] ?? 0 }))
    .filter((one) => one.bytes > 0)
    .sort((a, b) => b.bytes - a.bytes);
  const ours = held.reduce((sum, one) => sum + one.bytes, 0);
  const others = Math.max(0, total - device.free - ours);
  const free = Math.max(0, total - ours - others);
  const whole = Math.max(total, ours + others + free);
  const share = (bytes: number): number => (100 * bytes) / whole;
  const parts: Part[] = held.map((one) => ({ kind: "model", ...one, share: share(one.bytes) }));
  if (others > 0) parts.push({ kind: "others", name: "", bytes: others, share: share(others) });
  parts.push({ kind: "free", name: "", bytes: free, share: share(free) });
  return parts;
}
