/**
 * One channel's log on this device: a run without holes, and what arrived ahead of it.
 *
 * Events come by DELIVER, by HISTORY, and from our own sends when their ack tells the seq; in any order, any number of
 * times. Each leaves here once and in order. `base … have` is what this device holds; `have` moves only by `takeReady`,
 * together with the storage of what it passes.
 *
 * **Own-author hold.** An event by this user may be a send of ours whose ack was lost. While such a send is unresolved, the
 * caller says so through `held` and nothing from that event on is given out; when the send is resolved the event is either
 * that message (its key is known by then) or one of another device. An event carries the attempt counter of its arrival,
 * because only sends attempted before it arrived can be it.
 *
 * What is ahead is bounded; what does not fit is dropped and fetched when its turn comes.
 */

import type { LogEvent, MessageKey } from "../wire/values.js";

const AHEAD_EVENTS_MAX = 1_024;
const AHEAD_BYTES_MAX = 1_048_576;

/** An event and what this device knows of it. */
export interface Arrived {
  event: LogEvent;
  /** The message's key, when it is one of our own sends. */
  key: MessageKey | null;
  /** Attempts that the outbox had made when it arrived. */
  attempts: number;
}

export class Log {
  base: number;
  have: number;
  /** The highest seq that is known to exist. */
  head: number;
  private ahead = new Map<number, Arrived>();
  private aheadBytes = 0;

  /** Holds `base … have`; empty when `have` is `base - 1`. */
  constructor(base: number, have: number, head: number) {
    this.base = Math.max(base, 1);
    this.have = Math.max(have, this.base - 1);
    this.head = Math.max(head, this.have);
  }

  noteHead(head: number): void {
    this.head = Math.max(this.head, head);
  }

  /** An event came, by whatever way. Known ones are dropped; a known one that turns out to be ours learns its key. */
  arrive(arrived: Arrived): void {
    const seq = arrived.event.seq;
    this.noteHead(seq);
    if (seq <= this.have) return;
    const known = this.ahead.get(seq);
    if (known) {
      known.key ??= arrived.key;
      return;
    }
    this.aheadBytes += arrived.event.tail.length;
    this.ahead.set(seq, arrived);
    while (this.ahead.size > 1 && (this.ahead.size > AHEAD_EVENTS_MAX || this.aheadBytes > AHEAD_BYTES_MAX)) {
      this.drop(Math.max(...this.ahead.keys()));
    }
  }

  /** The next events in order, up to the first that is missing or held; the run grows over them. */
  takeReady(held: (arrived: Arrived) => boolean): Arrived[] {
    const ready: Arrived[] = [];
    for (;;) {
      const next = this.ahead.get(this.have + 1);
      if (!next || held(next)) return ready;
      this.drop(this.have + 1);
      this.have += 1;
      ready.push(next);
    }
  }

  /** The range to fetch next, up to `limit`. Null also while the next event is here but held. */
  missing(limit: number): [from: number, to: number] | null {
    const from = this.have + 1;
    if (from > this.head || from > limit || this.ahead.has(from)) return null;
    let to = Math.min(this.head, limit);
    for (const seq of this.ahead.keys()) to = Math.min(to, seq - 1);
    return [from, to];
  }

  /** What lies below `first` is not there for us: the run starts again at `first`. Returns what was skipped. */
  skipTo(first: number): [from: number, to: number] | null {
    if (first <= this.have + 1) return null;
    const skipped: [number, number] = [this.have + 1, first - 1];
    this.base = first;
    this.have = first - 1;
    this.noteHead(this.have);
    for (const seq of [...this.ahead.keys()]) if (seq < first) this.drop(seq);
    return skipped;
  }

  /** Keeps the newest `keep` events. Returns the seq below which the rest is let go of; null if there is no rest. */
  trim(keep: number): number | null {
    const base = this.have + 1 - keep;
    if (base <= this.base) return null;
    this.base = base;
    return base;
  }

  /** How many events the run holds. */
  held(): number {
    return this.have + 1 - this.base;
  }

  /** Older events, up to just below the run, were stored: it reaches down to `base` now. */
  extendDown(base: number): void {
    this.base = Math.min(this.base, Math.max(base, 1));
  }

  private drop(seq: number): void {
    const dropped = this.ahead.get(seq);
    if (!dropped) return;
    this.aheadBytes -= dropped.event.tail.length;
    this.ahead.delete(seq);
  }
}
