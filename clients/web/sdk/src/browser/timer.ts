/**
 * Time for the driver: a monotonic clock and one alarm.
 *
 * Browsers slow the timers of pages in the background down to one a minute, which is more than a connection's silence may
 * last (45 s). A worker's timers are not slowed down, so a worker rings: {@link defaultTimer} starts one from a `blob:` URL; under a
 * Content-Security-Policy that forbids those, {@link workerTimer} takes one that the application started from its own script.
 */

/** A clock and an alarm. */
export interface Timer {
  /** Milliseconds that never go back. */
  now(): number;
  /** Rings once at that time, instead of what was set before; `Infinity`: never. */
  set(at: number, ring: () => void): void;
  /** Lets go of what it holds. */
  end?(): void;
}

/** `setTimeout` holds 31 bits. */
const LONGEST_MS = 2_000_000_000;

/** A timer of the page's own, which is slowed down in the background. */
export function plainTimer(): Timer {
  let handle: ReturnType<typeof setTimeout> | undefined;
  return {
    now: () => performance.now(),
    set: (at, ring) => {
      clearTimeout(handle);
      if (at !== Infinity) handle = setTimeout(ring, Math.min(Math.max(at - performance.now(), 0), LONGEST_MS));
    },
    end: () => clearTimeout(handle),
  };
}

/** A timer that rings by this worker, whose script is `@conch/sdk/ticker`. If the worker fails, the plain one takes over. */
export function workerTimer(worker: Worker): Timer {
  const plain = plainTimer();
  let broken = false;
  let number = 0;
  let last: { at: number; ring: () => void } = { at: Infinity, ring: () => {} };
  worker.onmessage = (message) => {
    if (message.data === number) last.ring();
  };
  worker.onerror = (event) => {
    event.preventDefault();
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
    end: () => {
      worker.terminate();
      plain.end?.();
    },
  };
}

/** `@conch/sdk/ticker`, as text. */
const TICKER = "let h;onmessage=({data:{number,ms}})=>{clearTimeout(h);if(ms!==null)h=setTimeout(()=>postMessage(number),ms)}";

/** Rings in the background too, by a worker of its own; the plain timer where none can be started (outside of a browser, say). */
export function defaultTimer(): Timer {
  if (typeof Worker !== "function" || typeof document !== "object") return plainTimer();
  try {
    const url = URL.createObjectURL(new Blob([TICKER], { type: "text/javascript" }));
    const worker = new Worker(url, { name: "conch-ticker" });
    return workerTimer(worker);
  } catch {
    return plainTimer();
  }
}
