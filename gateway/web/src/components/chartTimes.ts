/** Times beside an axis, in the person's own time zone. */

const DAY = 86_400;
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const BOTH = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** "26 Nov, 18:58:03" */
export function dayAndTime(when: Date): string {
  return BOTH.format(when);
}

/** "26 Nov" */
export function dayOnly(when: Date): string {
  return DATE.format(when);
}

/** What stands at `splits` (seconds since 1970), `every` seconds apart: the time, or the day where
 * that begins. */
export function timeTicks(splits: readonly number[], every: number): string[] {
  return splits.map((split) => {
    const when = new Date(split * 1000);
    const midnight = when.getHours() === 0 && when.getMinutes() === 0;
    return every >= DAY || midnight ? DATE.format(when) : CLOCK.format(when);
  });
}
