/**
 * What this device still has to send: every message from the moment it is written until the node has said where it lies or
 * that it never will.
 *
 * Items are stored before their first byte leaves (the caller carries out persistence first) and keep their order for ever.
 * Each channel has a **lane**: at most one SEND or SEND_MANY of it is in flight, and what gathers meanwhile goes into the
 * next, so nothing overtakes. A frame that is refused for now waits as a whole; one that is refused for good loses the item
 * that the refusal names, and the rest goes again in order. Where the outcome is not known the key stays, and the same
 * message goes again with RETRY.
 *
 * What is refused for good leaves its lane and stays in the outbox, over restarts too, until the person cancels it: a text
 * that somebody wrote is not thrown away.
 *
 * An item's *attempt* is set from the moment a frame with it may have reached the node until an answer settles it. That is
 * what is asked in HELLO, and what holds back own events in `merge.ts`.
 */

import { Code, adviceOf } from "../wire/codes.js";
import { HELLO_PENDING_MAX, SENDS_IN_FLIGHT_MAX, SEND_MANY_BYTES_MAX, SEND_MANY_ITEMS_MAX } from "../wire/limits.js";
import { type Ack, type Id, type MessageKey, type PendingAnswer, type PendingSend, RETRY } from "../wire/values.js";
import { Backoff, type Jitter, type Ms } from "./backoff.js";

/** Bytes that an item takes in a SEND_MANY besides its tail: its length and its header. */
const ITEM_OVERHEAD_BYTES = 4 + 24;
const RETRY_BASE_MS = 100;
const RETRY_CAP_MS = 10_000;
/**
 * After a refusal for rate nothing goes out for so long. The node takes one such refusal a second as an accident and more of
 * them as a flood, which ends the session; and who waits finds a bucket with more in it.
 */
const RATE_PAUSE_MS = 1_100;
/** After that, so many acks in a row allow for one more frame in flight: each of several would be refused by itself. */
const ACKS_PER_FRAME_MORE = 32;
/** How many more items a lane tries in one frame after an ack. */
const ITEMS_MORE = 4;

/** A message on its way out. */
export interface OutboxItem {
  /** Order of writing on this device; never reused. */
  id: number;
  channel: Id;
  key: MessageKey;
  kind: number;
  /** TABLE or nothing; RETRY is added on the way out. */
  flags: number;
  tail: Uint8Array;
  /** When it was written, ms since 1970 by this device's clock. */
  createdMs: number;
  /** Why the node has it not and never will. It stays, out of its lane, until the person cancels it. */
  refused?: number;
  /** The node has it, there. It stays, out of its lane, until it has its place among the others; see `placing.ts`. */
  stored?: { seq: number; timeMs: number };
  /** The newest event of the channel that this device held when it was written. Not there: the channel was not known. */
  after?: number;
}

interface Waiting {
  item: OutboxItem;
  attempt: number | null;
  retry: boolean;
}

class Lane {
  waiting: Waiting[] = [];
  /** Items of the frame in flight: the first of `waiting`. */
  inFlight = 0;
  /** The attempt that this frame is. */
  attempt = 0;
  notBefore: Ms = 0;
  backoff = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  /** Halved by every refusal for rate, so that a burst above the node's bucket gets through; grows with every ack. */
  itemsMax = SEND_MANY_ITEMS_MAX;

  frameLength(): number {
    let bytes = 0;
    let fitting = 0;
    for (const { item } of this.waiting.slice(0, this.itemsMax)) {
      bytes += ITEM_OVERHEAD_BYTES + item.tail.length;
      if (bytes > SEND_MANY_BYTES_MAX) break;
      fitting += 1;
    }
    // A message above the limit of SEND_MANY goes alone, as a SEND.
    return Math.min(Math.max(fitting, 1), this.waiting.length);
  }
}

/** An item and its end. */
export type Settled = { item: OutboxItem; ack: Ack } | { item: OutboxItem; code: number };

/** What a refusal of a frame means for its lane. */
export type Refusal =
  | { is: "waits"; until: Ms }
  | { is: "dropped"; settled: Settled }
  | { is: "reopen" }
  | { is: "reconnect" };

export class Outbox {
  private readonly lanes = new Map<Id, Lane>();
  /** By key, oldest first. */
  private readonly refused = new Map<MessageKey, OutboxItem>();
  private lastId = 0;
  /** Frames built so far; see {@link Waiting.attempt}. */
  attempts = 0;
  private waitingCount = 0;
  private framesInFlight = 0;
  /** One after a refusal for rate, because the bucket is this person's and not the channel's; slowly more again. */
  private framesMax = SENDS_IN_FLIGHT_MAX;
  /** Since the last refusal for rate. */
  private acksInARow = 0;
  /** In all channels: the bucket is this person's. */
  private rateNotBefore: Ms = 0;
  private asked: PendingSend[] = [];

  /** `items`: what was on disk, in order. Each of them that was neither stored nor refused may have been sent. */
  constructor(items: OutboxItem[]) {
    for (const item of items) {
      this.lastId = Math.max(this.lastId, item.id);
      if (item.stored) continue;
      if (item.refused === undefined) this.put({ item, attempt: 0, retry: true });
      else this.refused.set(item.key, item);
    }
  }

  /** Messages that are kept, the refused ones included. */
  get size(): number {
    return this.waitingCount + this.refused.size;
  }

  /** Keeps an item that left its lane; returns it as it is to be stored. */
  keepRefused(item: OutboxItem, code: number): OutboxItem {
    const kept = { ...item, refused: code };
    this.refused.set(kept.key, kept);
    return kept;
  }

  /** The person has seen that it was refused, or takes it back before it has ever left. Null: neither is so. */
  cancel(key: MessageKey): OutboxItem | null {
    const item = this.refused.get(key);
    if (item) {
      this.refused.delete(key);
      return item;
    }
    for (const [channel, lane] of this.lanes) {
      const at = lane.waiting.findIndex((it) => it.item.key === key && it.attempt === null && !it.retry);
      if (at >= 0) return this.remove(channel, at);
    }
    return null;
  }

  /** As {@link push}, for a message of which an earlier attempt was refused. */
  pushAgain(item: OutboxItem): void {
    this.put({ item, attempt: null, retry: true });
  }

  wasRefused(key: MessageKey): boolean {
    return this.refused.has(key);
  }

  nextId(): number {
    this.lastId += 1;
    return this.lastId;
  }

  push(item: OutboxItem): void {
    this.put({ item, attempt: null, retry: false });
  }

  private put(waiting: Waiting): void {
    this.waitingCount += 1;
    let lane = this.lanes.get(waiting.item.channel);
    if (!lane) this.lanes.set(waiting.item.channel, (lane = new Lane()));
    lane.waiting.push(waiting);
  }

  /** Whether a send that was attempted when the outbox had made `attempts` attempts is unresolved in the channel. */
  holds(channel: Id, attempts: number): boolean {
    return this.lanes.get(channel)?.waiting.some((it) => it.attempt !== null && it.attempt <= attempts) ?? false;
  }

  has(key: MessageKey): boolean {
    if (this.refused.has(key)) return true;
    for (const item of this.items()) if (item.key === key) return true;
    return false;
  }

  *items(): Generator<OutboxItem> {
    yield* this.refused.values();
    for (const lane of this.lanes.values()) for (const { item } of lane.waiting) yield item;
  }

  /** Messages whose frame is under way: in one channel, or in all. */
  sending(channel?: Id): MessageKey[] {
    const lanes = channel === undefined ? [...this.lanes.values()] : [this.lanes.get(channel)];
    return lanes.flatMap((lane) => lane?.waiting.slice(0, lane.inFlight).map(({ item }) => item.key) ?? []);
  }

  /** The pending sends to ask about in HELLO: the oldest of those that may have arrived. */
  ask(): PendingSend[] {
    const attempted = [...this.lanes.values()].flatMap((lane) => lane.waiting).filter((it) => it.attempt !== null);
    attempted.sort((a, b) => a.item.id - b.item.id);
    this.asked = attempted.slice(0, HELLO_PENDING_MAX).map(({ item: { channel, key } }) => ({ channel, key }));
    return this.asked;
  }

  /**
   * WELCOME's answers, by index. One without an answer stays unknown. What was written before `keysFrom` (ms since 1970, this
   * device's clock) is given up if it is not stored: the node may have forgotten its key, and would store it a second time
   * (P-029).
   */
  onAnswers(answers: PendingAnswer[], keysFrom: number): Settled[] {
    const settled: Settled[] = [];
    this.asked.forEach(({ channel, key }, i) => {
      const answer = answers[i];
      const at = this.lanes.get(channel)?.waiting.findIndex((it) => it.item.key === key) ?? -1;
      if (at < 0 || !answer) return;
      const waiting = this.lanes.get(channel)!.waiting[at]!;
      // Of a key that may be forgotten *absent* says nothing.
      if (answer.state === "absent" && waiting.item.createdMs >= keysFrom) waiting.attempt = null;
      if (answer.state === "stored") {
        settled.push({ item: this.remove(channel, at), ack: { seq: answer.seq, timeMs: answer.timeMs, flags: 1 } });
      }
    });
    this.asked = [];
    for (const [channel, lane] of [...this.lanes]) {
      for (const { item } of lane.waiting.filter((it) => it.item.createdMs < keysFrom)) {
        settled.push({ item: this.remove(channel, lane.waiting.findIndex((it) => it.item === item)), code: Code.outcomeUnknown });
      }
    }
    return settled;
  }

  private remove(channel: Id, at: number): OutboxItem {
    const lane = this.lanes.get(channel)!;
    const [removed] = lane.waiting.splice(at, 1);
    if (lane.waiting.length === 0) this.lanes.delete(channel);
    this.waitingCount -= 1;
    return removed!.item;
  }

  /** Channels that have something to send now; the one served last comes last. Waits that are over are forgotten. */
  ready(now: Ms): Id[] {
    const ready: Id[] = [];
    if (now < this.rateNotBefore) return ready;
    this.rateNotBefore = 0;
    for (const [channel, lane] of this.lanes) {
      if (lane.notBefore <= now) lane.notBefore = 0;
      if (lane.inFlight === 0 && lane.notBefore === 0) ready.push(channel);
    }
    return ready;
  }

  /** The channel's next frame: items in order with the flags that go out. Null when the connection's share is used up. */
  nextFrame(channel: Id): { item: OutboxItem; flags: number }[] | null {
    const lane = this.lanes.get(channel);
    if (!lane || this.framesInFlight >= this.framesMax) return null;
    const count = lane.frameLength();
    this.attempts += 1;
    const frame = lane.waiting.slice(0, count).map((waiting) => {
      const flags = waiting.item.flags | (waiting.retry ? RETRY : 0);
      waiting.attempt ??= this.attempts;
      waiting.retry = true;
      return { item: waiting.item, flags };
    });
    lane.inFlight = count;
    lane.attempt = this.attempts;
    this.framesInFlight += 1;
    // The next round begins with the others, so that one busy channel does not starve them.
    this.lanes.delete(channel);
    this.lanes.set(channel, lane);
    return frame;
  }

  /** SEND_ACK for the channel's frame. Null: it does not answer what is in flight. */
  onAck(channel: Id, acks: Ack[]): Settled[] | null {
    const lane = this.lanes.get(channel);
    if (!lane || lane.inFlight === 0 || lane.inFlight !== acks.length) return null;
    this.framesInFlight -= 1;
    this.acksInARow += 1;
    if (this.acksInARow % ACKS_PER_FRAME_MORE === 0) this.framesMax = Math.min(this.framesMax + 1, SENDS_IN_FLIGHT_MAX);
    const acked = lane.waiting.splice(0, lane.inFlight);
    this.waitingCount -= acked.length;
    lane.inFlight = 0;
    lane.backoff.succeeded();
    lane.itemsMax = Math.min(lane.itemsMax + ITEMS_MORE, SEND_MANY_ITEMS_MAX);
    if (lane.waiting.length === 0) this.lanes.delete(channel);
    return acked.map(({ item }, i) => ({ item, ack: acks[i]! }));
  }

  /** ERROR for the channel's frame. Null: nothing of it is in flight. */
  onRefused(channel: Id, error: { code: number; item: number; retryAfterMs: number }, now: Ms, jitter: Jitter): Refusal | null {
    const lane = this.lanes.get(channel);
    if (!lane || lane.inFlight === 0) return null;
    const count = lane.inFlight;
    lane.inFlight = 0;
    this.framesInFlight -= 1;
    const advice = adviceOf(error.code);
    if (advice === "resume" || advice === "afresh" || advice === "authenticate") {
      // The session is about to end; HELLO asks what became of them.
      lane.notBefore = Infinity;
      return { is: "reconnect" };
    }
    if (error.code !== Code.outcomeUnknown) {
      // Certain for this attempt: what an earlier one may have stored is as unknown as before.
      for (const it of lane.waiting.slice(0, count)) if (it.attempt === lane.attempt) it.attempt = null;
    }
    if (error.code === Code.badAlias) return { is: "reopen" };
    if (advice === "retry-here") {
      if (error.code === Code.rateLimited) {
        lane.itemsMax = Math.max(Math.floor(count / 2), 1);
        this.framesMax = 1;
        this.acksInARow = 0;
        this.rateNotBefore = now + Math.max(error.retryAfterMs, RATE_PAUSE_MS);
      }
      lane.notBefore = now + lane.backoff.failed(error.retryAfterMs, jitter);
      return { is: "waits", until: lane.notBefore };
    }
    const item = this.remove(channel, Math.min(error.item, count - 1));
    return { is: "dropped", settled: { item, code: error.code } };
  }

  /**
   * The channel cannot be opened, for good: nothing of it can be sent. What was never attempted, or is known not to have
   * arrived, is refused; says also whether something is left whose fate only the next HELLO can tell.
   */
  onOpenRefused(channel: Id, code: number): { settled: Settled[]; someAreUnknown: boolean } {
    const lane = this.lanes.get(channel);
    if (!lane) return { settled: [], someAreUnknown: false };
    const refused = lane.waiting.filter((it) => it.attempt === null);
    lane.waiting = lane.waiting.filter((it) => it.attempt !== null);
    this.waitingCount -= refused.length;
    const someAreUnknown = lane.waiting.length > 0;
    if (!someAreUnknown) this.lanes.delete(channel);
    return { settled: refused.map(({ item }) => ({ item, code })), someAreUnknown };
  }

  /** The channel cannot be opened now. */
  delay(channel: Id, retryAfterMs: number, now: Ms, jitter: Jitter): void {
    const lane = this.lanes.get(channel);
    if (lane) lane.notBefore = now + lane.backoff.failed(retryAfterMs, jitter);
  }

  /** The connection is gone: what was in flight, in the channels returned, may have arrived. */
  onDisconnected(): Id[] {
    this.framesInFlight = 0;
    this.rateNotBefore = 0;
    this.asked = [];
    const cut: Id[] = [];
    for (const [channel, lane] of this.lanes) {
      if (lane.inFlight > 0) cut.push(channel);
      lane.inFlight = 0;
      lane.notBefore = 0;
    }
    return cut;
  }

  /** When the next lane that waits for a time may go on. */
  nextAt(): Ms {
    let next = Infinity;
    for (const lane of this.lanes.values()) {
      if (lane.notBefore > 0) next = Math.min(next, Math.max(lane.notBefore, this.rateNotBefore));
      else if (lane.inFlight === 0 && this.rateNotBefore > 0) next = Math.min(next, this.rateNotBefore);
    }
    return next;
  }
}
