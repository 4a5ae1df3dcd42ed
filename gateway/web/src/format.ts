/** Numbers, sizes and times as people read them. */

const NUMBER = new Intl.NumberFormat("en");

/** A count with its thousands separated. */
export function count(value: number): string {
  return NUMBER.format(Math.round(value));
}

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** Bytes as GiB, or MiB below one of it, or KiB below one of those. */
export function size(bytes: number): string {
  if (bytes >= GIB - MIB / 2) return `${(bytes / GIB).toFixed(bytes >= 100 * GIB ? 0 : 1)} GiB`;
  if (bytes >= MIB || bytes === 0) return `${count(bytes / MIB)} MiB`;
  return `${count(Math.max(1, bytes / 1024))} KiB`;
}

/** A part of a whole: "0.4 of 24.0 GiB", or "300 MiB of 2.0 GiB" where units differ. */
export function sizeOf(part: number, whole: number): string {
  const [a, b] = [size(part), size(whole)];
  const unit = b.slice(b.indexOf(" "));
  return `${a.endsWith(unit) ? a.slice(0, -unit.length) : a} of ${b}`;
}

/** Seconds: "< 0.1 s", "0.4 s", "12 s", "3 min", "2 h 5 min", "4 d". */
export function duration(seconds: number): string {
  if (seconds > 0 && seconds < 0.05) return "< 0.1 s";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) {
    const rest = minutes % 60;
    return `${Math.floor(minutes / 60)} h${rest ? ` ${rest} min` : ""}`;
  }
  return `${Math.round(minutes / 1440)} d`;
}

/** A moment as seen from now: "just now", "2 min ago", "in 3 d". */
export function ago(when: Date, now: Date = new Date()): string {
  const seconds = (now.getTime() - when.getTime()) / 1000;
  if (Math.abs(seconds) < 10) return "just now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

/** The exact moment, in the person's own time zone. */
export function exactly(when: Date): string {
  return when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}
