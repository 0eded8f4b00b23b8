/**
 * The sans-IO core of a client: everything that a chat client must get right, without a socket, a clock or a disk.
 *
 * In go {@link Input}s (a transport opened, bytes came, a tick, a command) with the time; out come {@link Outputs} (steps to
 * store, frames to write, connections to open or close, events for the application) and the time of the next tick. The driver
 * in `browser/` carries them out with WebSocket and IndexedDB; a test does it with other means.
 *
 * What it promises: own messages keep their order and arrive once, whatever is cut when; each channel's events are given out
 * in the order of its log, each once; the sync token never passes a change that is not remembered. It never throws on what
 * comes from outside, and decides nothing by the wall clock. The Rust SDK has the same structure under the same names.
 *
 * | file | concept |
 * |---|---|
 * | `connect.ts` | when there is a connection: backoff, GOAWAY, tokens, beat |
 * | `resume.ts` | HELLO and WELCOME |
 * | `receive.ts` | frames → the concept that they belong to |
 * | `sending.ts`, `outbox.ts` | own messages on their way out |
 * | `merge.ts`, `channel.ts`, `placing.ts` | events into their order |
 * | `catchup.ts` | SYNC and HISTORY: finding and filling gaps |
 * | `reading.ts`, `marks.ts` | read marks and unread |
 *
 * The functions of those files take the core as their first parameter; its fields are theirs, and nobody else's.
 */

import type { ClientFrame } from "../wire/client-frame.js";
import { Code } from "../wire/codes.js";
import { CREDIT_BYTES } from "../wire/limits.js";
import type { Id, MessageKey } from "../wire/values.js";
import { AliasBook } from "./alias.js";
import { Jitter, type Ms } from "./backoff.js";
import { SyncState, nextGapAt, nextSyncAt, onLoadOlder, onLoadRange, pumpGaps, pumpSync } from "./catchup.js";
import { Channel } from "./channel.js";
import {
  Link, dropConnection, onClosed, onConnected, onHurry, onStart, onStop, onTokenRefreshed, onTokenRejected, pumpLink,
} from "./connect.js";
import type { ChannelInfo } from "./event.js";
import { FrameWriter, type Outputs, noOutputs } from "./out.js";
import { Outbox, type OutboxItem } from "./outbox.js";
import { type Loaded, type MemberRow, type Meta, emptyMeta } from "./persist.js";
import { nextMarkAt, onMarkRead, pumpMarks, pumpUncounted } from "./reading.js";
import { onReceived } from "./receive.js";
import { awaitPlace, onKeepMembers } from "./placing.js";
import { Requests } from "./requests.js";
import { nextSendAt, onClose, onDismiss, onOpen, onRetry, onSend, pumpSends } from "./sending.js";

/** Settings of a core. */
export interface Config {
  /** Program and version, for the node's logs; ≤ 64 bytes. */
  client: string;
  push: "all" | "opened";
  /** How much the node may push before it hears from us. */
  creditBytes: number;
  /** A channel that is new to this device starts with its newest events, so many; the older ones are loaded on demand. */
  firstSightEvents: number;
  /** In a full listing, the channels used last, so many, start with events; the others start empty. */
  firstSightChannels: number;
  /** A channel that is not shown holds at least its newest events, so many, and at most twice as many. The node has the others. */
  heldEventsMax: number;
  /** Messages waiting to be sent, or refused and not cancelled; more are not taken. */
  outboxItemsMax: number;
  /** Ceiling of the first delay before connecting again, and of all of them. */
  reconnectBaseMs: Ms;
  reconnectCapMs: Ms;
  /** Seed of the jitter. Two clients with the same seed come back together: draw it from the system. */
  seed: number;
}

/** What a core does unless it is told otherwise. */
export const defaultConfig: Config = {
  client: "conch-web 0.1.0",
  push: "all",
  creditBytes: CREDIT_BYTES,
  firstSightEvents: 100,
  firstSightChannels: 100,
  heldEventsMax: 200,
  outboxItemsMax: 10_000,
  reconnectBaseMs: 500,
  reconnectCapMs: 30_000,
  seed: 0,
};

/** Something the core is told. */
export type Input =
  /** Connect, and stay connected. Also after the state `stopped`, once what stopped it is mended. */
  | { is: "start" }
  /** The transport of `connection` is open, this is the token to use on it, and `wallMs` since 1970 is this device's time. */
  | { is: "connected"; connection: number; token: string; wallMs: number }
  /** One WebSocket message: whole frames. */
  | { is: "received"; connection: number; bytes: Uint8Array }
  /** The transport is gone or did not come to be; `code` if the node said one. */
  | { is: "closed"; connection: number; code: number | null }
  | { is: "token-refreshed"; connection: number; token: string }
  /** There is no token to be had, for good: the person must log in again. */
  | { is: "token-rejected"; connection: number }
  | { is: "tick" }
  | Command;

/** Something the application wants. */
export type Command =
  /** A message that fits the limits, and for which {@link Core.outboxRoom} said that there is room. */
  | { is: "send"; channel: Id; key: MessageKey; kind: number; flags: number; tail: Uint8Array; createdMs: number }
  /** Forget a message that was refused, or that has never left. */
  | { is: "cancel"; key: MessageKey }
  /** Send a message that was refused once more; under its own key, unless `newKey` is another. */
  | { is: "retry"; key: MessageKey; newKey: MessageKey; createdMs: number }
  /** The person has read up to here. */
  | { is: "mark-read"; channel: Id; seq: number }
  /** The application shows the channel; it need not be known yet. */
  | { is: "open"; channel: Id }
  | { is: "close"; channel: Id }
  /** Store up to `items` events older than those that this device holds; answered with the ticket. */
  | { is: "load-older"; ticket: number; channel: Id; items: number }
  /** Read up to `items` events of `from … to`, the oldest, without storing them; answered with the ticket. */
  | { is: "load-range"; ticket: number; channel: Id; from: number; to: number; items: number }
  /** The node's list of a channel's members, as of an event that this device held before the list was asked for. */
  | { is: "keep-members"; channel: Id; asOf: number; members: MemberRow[] }
  /** The network changed or the person is back: do not sit out the delay, and find out soon whether the connection lives. */
  | { is: "hurry" }
  /** Say goodbye and stay disconnected. */
  | { is: "stop" };

/** The state machine of a client, without IO. Applications use {@link Client}, which drives one; see the source for its parts. */
export class Core {
  readonly config: Config;
  readonly jitter: Jitter;
  readonly meta: Meta;
  readonly known: Map<Id, Channel>;
  readonly outbox: Outbox;
  readonly link: Link;
  sync = new SyncState();
  aliases = new AliasBook();
  /** Channels of HELLO's cursors, in their order: a refusal names the index. */
  cursors: Id[] = [];
  requests = new Requests();
  readonly frames = new FrameWriter();
  out: Outputs = noOutputs();
  /** Channels whose row is to be stored, and said to the application, when the input is dealt with. */
  readonly changed = new Set<Id>();
  /** Channels whose messages on their way are others, or in another state: said when the input is dealt with. */
  readonly outboxChanged = new Set<Id>();
  /** Channels that may have a hole to fetch. */
  readonly gaps = new Set<Id>();
  /** Channels that may have a mark to tell. */
  readonly marksDue = new Set<Id>();
  /** Channels that may have to be counted. */
  readonly uncounted = new Set<Id>();
  /** Channels that the application shows. */
  readonly shown = new Set<Id>();
  /** Own messages that the node has, ahead of their place. */
  readonly unplaced = new Map<string, OutboxItem>();
  used = 0;
  /** This device's time when the connection was opened; see `Outbox.onAnswers`. */
  wallMs = 0;
  /** Channels of a full listing that still start with events. Over connections: a listing may be cut in the middle. */
  firstSights: number;

  /** A core with what was stored. It does nothing until `start`. */
  constructor(config: Partial<Config>, loaded: Loaded = { meta: emptyMeta(), channels: [], outbox: [] }) {
    this.config = { ...defaultConfig, ...config };
    // The node caps what it grants itself: a larger window here would never be half used.
    this.config.creditBytes = Math.min(Math.max(this.config.creditBytes, 1), CREDIT_BYTES);
    this.firstSights = this.config.firstSightChannels;
    this.jitter = new Jitter(this.config.seed);
    this.link = new Link(this.config);
    this.meta = loaded.meta;
    this.known = new Map(loaded.channels.map((row) => [row.channel, Channel.load(row)]));
    this.outbox = new Outbox(loaded.outbox);
    for (const item of loaded.outbox) if (item.stored && !awaitPlace(this, item)) this.out.persist.push({ remove: "outbox", id: item.id });
    for (const row of loaded.channels) {
      this.used = Math.max(this.used, row.used);
      if (row.marks.wanted > 0) this.marksDue.add(row.channel);
    }
  }

  /** Deals with one input. `now` never goes back. */
  handle(now: Ms, input: Input): void {
    switch (input.is) {
      case "start":
        onStart(this);
        break;
      case "connected":
        this.wallMs = input.wallMs;
        onConnected(this, now, input.connection, input.token);
        break;
      case "received":
        onReceived(this, now, input.connection, input.bytes);
        break;
      case "closed":
        onClosed(this, now, input.connection, input.code);
        break;
      case "token-refreshed":
        onTokenRefreshed(this, input.connection, input.token);
        break;
      case "token-rejected":
        onTokenRejected(this, input.connection);
        break;
      case "hurry":
        onHurry(this, now);
        break;
      case "tick":
        break;
      case "send": {
        const { is: _, ...message } = input;
        onSend(this, { id: this.outbox.nextId(), ...message });
        break;
      }
      case "cancel":
        onDismiss(this, input.key);
        break;
      case "retry":
        onRetry(this, input.key, input.newKey, input.createdMs);
        break;
      case "mark-read":
        onMarkRead(this, input.channel, input.seq);
        break;
      case "open":
        onOpen(this, now, input.channel);
        break;
      case "close":
        onClose(this, input.channel);
        break;
      case "load-older":
        onLoadOlder(this, input.ticket, input.channel, input.items);
        break;
      case "load-range":
        onLoadRange(this, input.ticket, input.channel, input.from, input.to, input.items);
        break;
      case "keep-members":
        onKeepMembers(this, input.channel, input.asOf, input.members);
        break;
      case "stop":
        onStop(this);
    }
    this.settle(now);
  }

  /** Lets everything go on that can, and stores what changed. Runs after every input, a tick included. */
  private settle(now: Ms): void {
    pumpLink(this, now);
    if (this.link.isOnline()) {
      pumpSync(this, now);
      pumpSends(this, now);
      pumpGaps(this, now);
      pumpMarks(this, now);
      pumpUncounted(this);
      this.link.heartbeat.waits(now, this.requests.wait());
    }
    for (const id of this.changed) {
      const channel = this.known.get(id);
      if (!channel) continue;
      this.out.persist.push({ put: "channel", row: channel.row() });
      this.out.events.push({ is: "channel", info: channel.info() });
    }
    this.changed.clear();
    for (const channel of this.outboxChanged) this.out.events.push({ is: "outbox", channel, sending: this.outbox.sending(channel) });
    this.outboxChanged.clear();
  }

  /** What is to be done; see {@link Outputs}. Taken after any number of inputs. */
  takeOutputs(): Outputs {
    const out = this.out;
    out.frames.push(...this.frames.take());
    this.out = noOutputs();
    return out;
  }

  /** When the next `tick` is due, if no other input comes before; `Infinity`: never. */
  wakeAt(): Ms {
    const link = this.link.nextAt();
    if (!this.link.isOnline()) return link;
    return Math.min(link, nextMarkAt(this), nextGapAt(this), nextSendAt(this), nextSyncAt(this));
  }

  /** All channels, without order. */
  channels(): ChannelInfo[] {
    return [...this.known.values()].map((channel) => channel.info());
  }

  /** Whether one more message can be kept until it is sent. */
  outboxRoom(): boolean {
    return this.outbox.size + this.unplaced.size < this.config.outboxItemsMax;
  }

  /** Own messages that are not in the log, in the order in which they were written; {@link Core.sending} tells which are under way. */
  outboxItems(): OutboxItem[] {
    return [...this.outbox.items(), ...this.unplaced.values()].sort((a, b) => a.id - b.id);
  }

  /** Keys of those whose answer is awaited. */
  sending(): MessageKey[] {
    return this.outbox.sending();
  }

  /** Queues a frame for the connection that is open. */
  put(frame: ClientFrame): void {
    this.frames.put(frame);
  }

  /** Stores what is known beyond channels with the next outputs. */
  saveMeta(): void {
    this.out.persist.push({ put: "meta", meta: structuredClone(this.meta) });
  }

  /** What the node sent makes no sense: this connection cannot be trusted. */
  distrust(now: Ms): void {
    dropConnection(this, now, Code.badFrame);
  }
}
