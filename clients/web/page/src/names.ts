/**
 * What people wrote, made safe to show in one line: names and titles. Text is only ever set as text; this is about looks.
 *
 * Controls and marks of direction are dropped (a name must not turn its surroundings around), and towers of combining marks
 * are cut. Messages keep every character; their bubbles clip what would leave them.
 */

/** What parts lines and words: a space here. */
const BREAKS = /[\t\n\v\f\r\u0085\u2028\u2029]+/gu;
/** Controls, marks of direction, what only layout engines and annotators want. Joiners stay: scripts and emoji need them. */
const INVISIBLE = /[\p{Cc}\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;
const TOWERS = /(\p{M}{2})\p{M}+/gu;
/** What takes place, if any, and shows nothing: fillers, joiners, blanks, marks without a letter. */
const BLANK = /^[\p{Z}\p{M}\p{Cf}\u115f\u1160\u2800\u3164\uffa0]*$/u;
const NAME_CHARS_MAX = 64;
/** Before anything else: what comes from elsewhere may be long. */
const LOOKED_AT_CHARS = 4_000;

/** A name or title for one line of at most `max` characters; `fallback` when nothing visible is left of it. */
export function clean(name: string, fallback: string, max = NAME_CHARS_MAX): string {
  const whole = cut(name, LOOKED_AT_CHARS).replace(BREAKS, " ").replace(INVISIBLE, "").replace(TOWERS, "$1").replace(/\s+/gu, " ").trim();
  if (BLANK.test(whole)) return fallback;
  const characters = [...whole];
  return characters.length > max ? `${characters.slice(0, max - 1).join("")}…` : whole;
}

/** The first `units` of a text, and no half of a character. */
export function cut(text: string, units: number): string {
  const last = text.charCodeAt(units - 1);
  return text.slice(0, text.length > units && last >= 0xd800 && last < 0xdc00 ? units - 1 : units);
}

/** One or two letters for an avatar. */
export function initials(name: string): string {
  const words = name.split(/[\s._-]+/u).filter(Boolean);
  const letters = words.length > 1 ? [words[0]!, words.at(-1)!] : [words[0] ?? "?"];
  return letters.map((word) => /[\p{L}\p{N}]/u.exec(word)?.[0] ?? [...word][0] ?? "").join("").toUpperCase();
}

/** A number from 0 to 7 that is always the same for an id. */
export function hue(id: string): number {
  let sum = 0;
  for (const c of id) sum = (sum * 31 + c.charCodeAt(0)) >>> 0;
  return sum % 8;
}
