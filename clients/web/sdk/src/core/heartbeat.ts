/**
 * Finding out that a connection is dead: PING on a beat, and giving up after silence. A connection that has a reason to speak
 * is doubted sooner: when the person or the network is back at once, and when something was asked and nothing at all came back
 * for a while. Then it gets a PING, and a few seconds.
 */

import { HEARTBEAT_MS, SILENCE_MAX_MS } from "../wire/limits.js";
import type { Ms } from "./backoff.js";

/** How long a probed connection has to show that it is alive: a round trip on a bad network and one retransmission. */
const PROBE_MAX_MS = 4_000;
/** What is received this soon after a probe may have been on its way before; only the answer to the probe counts. */
const PROBE_DOUBT_MS = 1_000;
/** So long may something that was asked go without one byte from the node. One that is only slow answers the PING. */
const ANSWER_DOUBT_MS = 10_000;

export class Heartbeat {
  private intervalMs = HEARTBEAT_MS;
  private silenceMaxMs = SILENCE_MAX_MS;
  private lastHeard: Ms;
  private nextPing: Ms;
  private nonce = 0;
  /** A question whether the connection is alive, by the nonce of its PING. */
  private probing: { nonce: number; began: Ms } | null = null;
  /** Since when something that was asked waits, and nothing was heard. */
  private waitingSince: Ms | null = null;

  constructor(now: Ms) {
    this.lastHeard = now;
    this.nextPing = now + this.intervalMs;
  }

  /** WELCOME announced the node's beat. 0 leaves ours. */
  announced(now: Ms, heartbeatMs: number, silenceMaxMs: number): void {
    if (heartbeatMs > 0) {
      this.intervalMs = heartbeatMs;
      this.nextPing = now + heartbeatMs;
    }
    if (silenceMaxMs > 0) this.silenceMaxMs = silenceMaxMs;
  }

  /** Whether anything is asked and not answered. Said after every input. */
  waits(now: Ms, waits: boolean): void {
    this.waitingSince = waits ? (this.waitingSince ?? now) : null;
  }

  heard(now: Ms): void {
    this.lastHeard = Math.max(this.lastHeard, now);
    this.waitingSince = null;
    if (this.probing && now >= this.probing.began + PROBE_DOUBT_MS) this.probing = null;
  }

  /** PONG is here. */
  answered(nonce: number): void {
    if (this.probing?.nonce === nonce) this.probing = null;
  }

  /** Asks at once, and gives up soon without an answer. A probe that is running keeps its deadline. */
  probe(now: Ms): void {
    this.nextPing = now;
    this.probing = { nonce: (this.nonce + 1) >>> 0, began: this.probing?.began ?? now };
  }

  /** What is due: a PING with this nonce, the end, or nothing. */
  due(now: Ms): number | "dead" | null {
    if (now >= this.deadAt()) return "dead";
    if (now >= this.doubtAt()) this.probe(now);
    if (now < this.nextPing) return null;
    this.nextPing = now + this.intervalMs;
    this.nonce = (this.nonce + 1) >>> 0;
    return this.nonce;
  }

  private deadAt(): Ms {
    const silence = this.lastHeard + this.silenceMaxMs;
    return this.probing ? Math.min(silence, this.probing.began + PROBE_MAX_MS) : silence;
  }

  private doubtAt(): Ms {
    return this.probing || this.waitingSince === null ? Infinity : this.waitingSince + ANSWER_DOUBT_MS;
  }

  nextAt(): Ms {
    return Math.min(this.nextPing, this.deadAt(), this.doubtAt());
  }
}
