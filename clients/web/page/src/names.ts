/**
 * What people wrote, made safe to show in one line: names and titles. Text is only ever set as text; this is about looks.
 *
 * Controls and marks of direction are dropped (a name must not turn its surroundings around), and towers of combining marks
 * are cut. Messages keep every character; their bubbles clip what would leave them.
 */

const INVISIBLE = /[\p{Cc}\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]/gu;
const TOWERS = /(\p{M}{2})\p{M}+/gu;
const NAME_CHARS_MAX = 64;

/** A name or title for one line; `fallback` when nothing visible is left of it. */
export function clean(name: string, fallback: string): string {
  const whole = name.replace(INVISIBLE, "").replace(TOWERS, "$1").replace(/\s+/gu, " ").trim();
  const characters = [...whole];
  const cut = characters.length > NAME_CHARS_MAX ? `${characters.slice(0, NAME_CHARS_MAX - 1).join("")}…` : whole;
  return cut || fallback;
}

/** One or two letters for an avatar. */
export function initials(name: string): string {
  const words = name.split(/[\s._-]+/u).filter(Boolean);
  const letters = words.length > 1 ? [words[0]!, words.at(-1)!] : [words[0] ?? "?"];
  return letters.map((word) => [...word][0] ?? "").join("").toUpperCase();
}

/** A number from 0 to 7 that is always the same for an id. */
export function hue(id: string): number {
  let sum = 0;
  for (const c of id) sum = (sum * 31 + c.charCodeAt(0)) >>> 0;
  return sum % 8;
}
