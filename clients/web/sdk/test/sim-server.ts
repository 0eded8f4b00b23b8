/**
 * A node as docs/protocol.md describes it, in memory: channels with dedupe, sessions with aliases and credit, SYNC with void
 * tokens, and refusals at random. What it answers goes into a session's `out`; the test carries it, late or never.
 */

import type { ClientFrame, Send } from "../src/wire/client-frame.js";
import type { ServerFrame } from "../src/wire/server-frame.js";
import type { ChannelHead, Id, LogEvent, PendingAnswer } from "../src/wire/values.js";
import { clientFrames, encodeServerFrame, eventTail } from "./codec.js";

const GENERATION = 77;
const LIMITS = { heartbeatMs: 25_000, silenceMaxMs: 45_000 };
const PAGE_ITEMS_MAX = 7;

interface Stored extends LogEvent {
  key: string;
  session: number;
}

class SimChannel {
  readonly log: Stored[] = [];
  readonly keys = new Map<string, number>();
  readonly read = new Map<Id, number>();
  constructor(
    readonly id: Id,
    readonly members: Id[],
  ) {}

  ordinal(seq: number): number {
    return this.log.slice(0, seq).filter((e) => e.kind < 16).length;
  }

  head(user: Id): ChannelHead {
    const readSeq = this.read.get(user) ?? 0;
    return {
      channel: this.id, headSeq: this.log.length, headOrdinal: this.ordinal(this.log.length), readSeq,
      readOrdinal: this.ordinal(readSeq), mentions: 0,
    };
  }
}

interface Session {
  user: Id;
  number: number;
  aliases: Map<Id, number>;
  channels: Map<number, Id>;
  credit: number;
  collapsed: Set<Id>;
  lastNodeAlias: number;
  sendsOpen: Set<Id>;
  out: Uint8Array[];
}

export class SimServer {
  readonly channels = new Map<Id, SimChannel>();
  limits = LIMITS;
  private readonly sessions = new Map<number, Session>();
  private readonly inbox = new Map<Id, Map<Id, number>>();
  private position = 0;
  private sessionNumber = 100;
  private timeMs = 1_795_255_200_000;
  /** Tokens from before this are void. */
  private incarnation = 1;
  faults = true;
  readonly seen = { retries: 0, dups: 0, many: 0, collapses: 0, pages: 0, resets: 0 };

  constructor(private readonly random: () => number) {}

  private chance(p: number): boolean {
    return this.faults && this.random() < p;
  }

  createChannel(id: Id, members: Id[]): void {
    const channel = new SimChannel(id, members);
    this.channels.set(id, channel);
    const tail = eventTail({ channelKind: 2, title: `c${id}`, members: members.map((user) => ({ user, role: "member" })) });
    this.append(channel, { author: members[0]!, kind: 16, flags: 0, tail }, "", -1);
  }

  /** Another person writes. */
  say(channel: Id, author: Id, words: string): void {
    const tail = new TextEncoder().encode(words);
    this.append(this.channels.get(channel)!, { author, kind: 1, flags: 0, tail }, `bot${this.timeMs}${words}`, -1);
  }

  private append(channel: SimChannel, event: Pick<LogEvent, "author" | "kind" | "flags" | "tail">, key: string, session: number): number {
    this.timeMs += 1;
    const stored: Stored = { ...event, seq: channel.log.length + 1, timeMs: this.timeMs, key, session };
    channel.log.push(stored);
    if (key) channel.keys.set(`${event.author}/${key}`, stored.seq);
    if (event.kind < 16) channel.read.set(event.author, stored.seq);
    this.touch(channel);
    for (const it of this.sessions.values()) {
      if (channel.members.includes(it.user) && it.number !== session) this.push(it, channel, stored);
    }
    return stored.seq;
  }

  private touch(channel: SimChannel): void {
    this.position += 1;
    for (const user of channel.members) {
      if (!this.inbox.has(user)) this.inbox.set(user, new Map());
      this.inbox.get(user)!.set(channel.id, this.position);
    }
  }

  private push(session: Session, channel: SimChannel, event: LogEvent): void {
    if (session.collapsed.has(channel.id)) return;
    if (session.credit <= 0) {
      session.collapsed.add(channel.id);
      this.seen.collapses += 1;
      return;
    }
    let alias = session.aliases.get(channel.id);
    if (alias === undefined) {
      session.lastNodeAlias += 1;
      alias = session.lastNodeAlias;
      this.opened(session, 0, channel, alias, false, event.seq - 1);
    }
    this.put(session, { is: "pushed", alias, event });
  }

  private put(session: Session, frame: ServerFrame): void {
    const bytes = encodeServerFrame(frame);
    if (frame.is === "pushed") session.credit -= bytes.length;
    session.out.push(bytes);
  }

  private opened(session: Session, request: number, channel: SimChannel, alias: number, resync: boolean, head?: number): void {
    session.aliases.set(channel.id, alias);
    session.channels.set(alias, channel.id);
    const at = channel.head(session.user);
    if (head !== undefined) {
      at.headSeq = head;
      at.headOrdinal = channel.ordinal(head);
      at.readSeq = Math.min(at.readSeq, head);
      at.readOrdinal = channel.ordinal(at.readSeq);
    }
    this.put(session, {
      is: "channel-opened", request, alias, head: at, kind: "group", title: `c${channel.id}`, peer: null, firstSeq: 1, resync,
    });
  }

  private open(session: Session, request: number, cursor: { channel: Id; generation: number; seq: number; alias: number }, item: number): void {
    const channel = this.channels.get(cursor.channel);
    if (!channel?.members.includes(session.user)) return this.error(session, request, 4402, 0x0c, item);
    if (this.chance(0.05)) return this.error(session, request, 4104, 0x0c, item, 20);
    const alias = session.aliases.get(cursor.channel) ?? cursor.alias;
    const isVoid = (cursor.generation !== 0 && cursor.generation !== GENERATION) || cursor.seq > channel.log.length;
    this.opened(session, request, channel, alias, isVoid);
    const gap = channel.log.slice(cursor.seq);
    if (isVoid || cursor.seq === 0 || gap.length > 200) return;
    for (const event of gap) this.push(session, channel, event);
  }

  private error(session: Session, request: number, code: number, refusedType: number, item = 0, retryAfterMs = 0): void {
    this.put(session, { is: "error", request, code, retryAfterMs, refusedType, item, detail: "" });
  }

  session(connection: number): Session | undefined {
    return this.sessions.get(connection);
  }

  cut(connection: number): void {
    this.sessions.delete(connection);
  }

  /** Every token that was given out is void from here on. */
  voidTokens(): void {
    this.incarnation += 1;
  }

  receive(connection: number, user: Id, message: Uint8Array): void {
    for (const frame of clientFrames(message)) this.handle(connection, user, frame);
  }

  private handle(connection: number, user: Id, frame: ClientFrame): void {
    if (frame.is === "hello") return this.hello(connection, user, frame);
    const session = this.sessions.get(connection);
    if (!session) return;
    switch (frame.is) {
      case "send":
        return this.sends(session, frame.request, [frame.send], 0x03);
      case "send-many":
        this.seen.many += 1;
        return this.sends(session, frame.request, frame.sends, 0x04);
      case "open-channel":
        return this.open(session, frame.request, frame.cursor, 0);
      case "history":
        return this.history(session, frame);
      case "sync":
        if (this.chance(0.1)) return this.error(session, frame.request, 4104, 0x0f, 0, 30);
        return this.sync(session, frame.request, frame.token);
      case "read": {
        const channel = this.channels.get(frame.channel)!;
        if (this.chance(0.1)) return this.error(session, frame.request, 4104, 0x09, 0, 30);
        const seq = Math.min(frame.seq, channel.log.length);
        if (seq <= (channel.read.get(user) ?? 0)) return;
        channel.read.set(user, seq);
        this.touch(channel);
        for (const it of this.sessions.values()) {
          if (it.user === user) this.put(it, { is: "channel-head", head: channel.head(user) });
        }
        return;
      }
      case "credit": {
        session.credit = Math.min(session.credit + frame.bytes, 262_144);
        if (session.credit <= 0) return;
        for (const id of session.collapsed) this.put(session, { is: "channel-head", head: this.channels.get(id)!.head(session.user) });
        session.collapsed.clear();
        return;
      }
      case "ping":
        return this.put(session, { is: "pong", nonce: frame.nonce, inboxPosition: BigInt(this.position) });
      case "goodbye":
        this.sessions.delete(connection);
    }
  }

  private hello(connection: number, user: Id, hello: ClientFrame & { is: "hello" }): void {
    for (const [other, it] of this.sessions) if (String(it.number) === hello.replaces) this.sessions.delete(other);
    this.sessionNumber += 1;
    const session: Session = {
      user, number: this.sessionNumber, aliases: new Map(), channels: new Map(), credit: hello.creditBytes || 262_144,
      collapsed: new Set(), lastNodeAlias: 0x8000_0000, sendsOpen: new Set(), out: [],
    };
    this.sessions.set(connection, session);
    const pending = hello.pending.map(({ channel, key }): PendingAnswer => {
      if (this.chance(0.1)) return { state: "unknown" };
      const at = this.channels.get(channel)?.keys.get(`${user}/${key}`);
      return at === undefined ? { state: "absent" } : { state: "stored", seq: at, timeMs: this.channels.get(channel)!.log[at - 1]!.timeMs };
    });
    this.put(session, {
      is: "welcome", minor: 0, features: "0", session: String(session.number), user, device: "5", timeMs: this.timeMs,
      generation: GENERATION, inboxPosition: BigInt(this.position), limits: this.limits, pending, resumed: hello.syncToken.length > 0, node: "sim",
    });
    hello.cursors.forEach((cursor, i) => this.open(session, 0, cursor, i));
    this.sync(session, 0, hello.syncToken);
  }

  private sends(session: Session, request: number, sends: Send[], type: number): void {
    const id = session.channels.get(sends[0]!.alias);
    const channel = id === undefined ? undefined : this.channels.get(id);
    if (!channel) return this.error(session, request, 4408, type);
    if (this.chance(0.15)) return this.error(session, request, 4100, type, 0, 50);
    const unknown = this.chance(0.1);
    if (unknown && this.random() < 0.5) return this.error(session, request, 4103, type);
    const known = (send: Send): number | undefined => channel.keys.get(`${session.user}/${send.key}`);
    const bad = sends.findIndex((send) => new TextDecoder().decode(send.tail).startsWith("!bad"));
    if (bad >= 0) return this.error(session, request, 4405, type, bad);
    const acks = sends.map((send) => {
      if (send.flags & 2) this.seen.retries += 1;
      const before = known(send);
      if (before !== undefined) this.seen.dups += 1;
      const event = { author: session.user, kind: send.kind, flags: send.flags & 1, tail: send.tail };
      const seq = before ?? this.append(channel, event, send.key, session.number);
      return { seq, timeMs: channel.log[seq - 1]!.timeMs, flags: before === undefined ? 0 : 1 };
    });
    if (unknown) return this.error(session, request, 4103, type);
    this.put(session, { is: "send-ack", request, acks });
  }

  private history(session: Session, frame: ClientFrame & { is: "history" }): void {
    if (this.chance(0.1)) return this.error(session, frame.request, this.random() < 0.5 ? 4100 : 4104, 0x0e, 0, 20);
    this.seen.pages += 1;
    const channel = this.channels.get(frame.channel)!;
    const to = Math.min(frame.to, channel.log.length);
    const items = Math.min(frame.itemsMax, PAGE_ITEMS_MAX);
    let events: LogEvent[] = channel.log.slice(frame.from - 1, to);
    events = frame.newest ? events.slice(-items) : events.slice(0, items);
    const from = events[0]?.seq ?? frame.from;
    this.put(session, {
      is: "history-page", request: frame.request, channel: channel.id, generation: GENERATION, coveredFrom: from,
      coveredTo: from + events.length - 1, firstSeq: 1, headSeq: channel.log.length, events,
    });
  }

  private sync(session: Session, request: number, token: Uint8Array): void {
    const [incarnation, since] = token.length > 0 ? new TextDecoder().decode(token).split(":").map(Number) : [0, 0];
    const reset = incarnation !== this.incarnation;
    if (reset) this.seen.resets += 1;
    const touched = [...(this.inbox.get(session.user) ?? new Map<Id, number>())];
    // Two rows a page, so that chains have several; a listing goes by what was touched, oldest first.
    const rows = touched.filter(([, at]) => reset || at > since!).sort((a, b) => a[1] - b[1]);
    const page = rows.slice(0, 2);
    this.put(session, {
      is: "sync-changes", request, reset, more: rows.length > 2,
      rows: page.map(([id]) => ({
        head: this.channels.get(id)!.head(session.user), kind: "group", role: "member", firstSeq: 1, title: `c${id}`, peer: null, leftSeq: null,
      })),
      token: new TextEncoder().encode(`${this.incarnation}:${page.at(-1)?.[1] ?? (reset ? 0 : since)}`),
    });
  }
}
