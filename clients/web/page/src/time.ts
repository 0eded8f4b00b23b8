/** Times for people, in their own language and zone. */

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const short = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const long = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

const DAY_MS = 86_400_000;

/** Calendar days from `ms` to now, in the person's zone. */
function daysAgo(ms: number, now: number): number {
  return Math.round((new Date(now).setHours(12, 0, 0, 0) - new Date(ms).setHours(12, 0, 0, 0)) / DAY_MS);
}

export const timeOfDay = (ms: number): string => clock.format(ms);
export const exactTime = (ms: number): string => exact.format(ms);

/** Names the calendar day; equal for times of the same day. */
export const dayOf = (ms: number): string => new Date(ms).toDateString();

export function dayName(ms: number, now = Date.now()): string {
  const days = daysAgo(ms, now);
  if (days >= 0 && days < 2) {
    const name = relative.format(-days, "day");
    return name.charAt(0).toLocaleUpperCase() + name.slice(1);
  }
  return days > 1 && days < 7 ? weekday.format(ms) : long.format(ms);
}

/** For lists: the time today, else the day. */
export function brief(ms: number, now = Date.now()): string {
  const days = daysAgo(ms, now);
  if (days <= 0) return timeOfDay(ms);
  return days < 7 ? weekday.format(ms).slice(0, 3) : short.format(ms);
}
