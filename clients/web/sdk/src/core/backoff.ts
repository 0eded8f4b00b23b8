/**
 * How long to wait before trying again: exponential backoff with full jitter.
 *
 * Randomness comes from a {@link Jitter} that is seeded from outside, so that a test replays a run and ten thousand clients
 * of one dead node do not come back together. Used for connections and for every refused request.
 */

/** Milliseconds on a clock that never goes back; where it starts does not matter. */
export type Ms = number;

/** Nothing is tried again sooner than this: a loop of instant refusals must not spin. */
const DELAY_MIN_MS = 20;
/** A node that advises longer than this is heard, but not believed. */
export const ADVICE_MAX_MS = 600_000;

/** A small generator (mulberry32). Spreads load; never used where an adversary must not guess. */
export class Jitter {
  constructor(private state: number) {}

  /** Uniform in 0 ≤ x < 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  }

  /** Uniform in `low … high`; `low` when the range is empty. */
  between(low: Ms, high: Ms): Ms {
    return high <= low ? low : low + Math.floor(this.next() * (high - low + 1));
  }
}

/** The growing ceiling of one thing's delays. */
export class Backoff {
  private failures = 0;

  constructor(
    private readonly baseMs: Ms,
    private readonly capMs: Ms,
  ) {}

  /** One more failure: the delay before the next attempt, below a ceiling that doubles, and at least what was advised. */
  failed(advisedMs: Ms, jitter: Jitter): Ms {
    const ceiling = Math.min(this.baseMs * 2 ** Math.min(this.failures, 20), this.capMs);
    this.failures += 1;
    return Math.min(advisedMs, ADVICE_MAX_MS) + jitter.between(Math.min(DELAY_MIN_MS, ceiling), ceiling);
  }

  succeeded(): void {
    this.failures = 0;
  }
}
