/** Finding out that a connection is dead: PING on a beat, and giving up after silence. */

import { HEARTBEAT_MS, SILENCE_MAX_MS } from "../wire/limits.js";
import type { Ms } from "./backoff.js";

export class Heartbeat {
  private intervalMs = HEARTBEAT_MS;
  private silenceMaxMs = SILENCE_MAX_MS;
  private lastHeard: Ms;
  private nextPing: Ms;
  private nonce = 0;

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

  heard(now: Ms): void {
    this.lastHeard = Math.max(this.lastHeard, now);
  }

  /** The network may have changed: ask now, and do not wait for the whole silence when nothing comes. */
  probe(now: Ms, answerMs: Ms): void {
    this.nextPing = now;
    this.lastHeard = Math.min(this.lastHeard, now - this.silenceMaxMs + answerMs);
  }

  /** What is due: a PING with this nonce, the end, or nothing. */
  due(now: Ms): number | "dead" | null {
    if (now >= this.lastHeard + this.silenceMaxMs) return "dead";
    if (now < this.nextPing) return null;
    this.nextPing = now + this.intervalMs;
    this.nonce = (this.nonce + 1) >>> 0;
    return this.nonce;
  }

  nextAt(): Ms {
    return Math.min(this.nextPing, this.lastHeard + this.silenceMaxMs);
  }
}
