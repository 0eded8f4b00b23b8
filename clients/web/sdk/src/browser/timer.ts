/**
 * Time for the driver: a monotonic clock and one alarm.
 *
 * Browsers slow the timers of pages in the background down to one a minute, which is more than a connection's silence may
 * last. A worker's timers are not slowed down: `workerTimer` lets one ring (its script is `@conch/sdk/ticker`).
 */

export interface Timer {
  /** Milliseconds that never go back. */
  now(): number;
  /** Rings once at that time, instead of what was set before; `Infinity`: never. */
  set(at: number, ring: () => void): void;
}

/** `setTimeout` holds 31 bits. */
const LONGEST_MS = 2_000_000_000;

export function plainTimer(): Timer {
  let handle: ReturnType<typeof setTimeout> | undefined;
  return {
    now: () => performance.now(),
    set: (at, ring) => {
      clearTimeout(handle);
      if (at !== Infinity) handle = setTimeout(ring, Math.min(Math.max(at - performance.now(), 0), LONGEST_MS));
    },
  };
}

/** A timer that rings by this worker. If the worker fails, the plain one takes over. */
export function workerTimer(worker: Worker): Timer {
  const plain = plainTimer();
  let broken = false;
  let number = 0;
  let last: { at: number; ring: () => void } = { at: Infinity, ring: () => {} };
  worker.onmessage = (message) => {
    if (message.data === number) last.ring();
  };
  worker.onerror = () => {
    broken = true;
    plain.set(last.at, last.ring);
  };
  return {
    now: plain.now,
    set: (at, ring) => {
      number += 1;
      last = { at, ring };
      if (broken) plain.set(at, ring);
      else worker.postMessage({ number, ms: at === Infinity ? null : Math.min(Math.max(at - performance.now(), 0), LONGEST_MS) });
    },
  };
}
