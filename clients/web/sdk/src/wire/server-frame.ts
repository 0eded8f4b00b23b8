/**
 * Frames from node to client, decoded.
 *
 * Nothing is trusted: tables pass `checkTable`, fixed layouts are read through a DataView that throws past its end, counts are
 * compared with the bytes that are there. Whatever is wrong is a {@link FrameError}. What is kept (tails, tokens) is copied,
 * so that no WebSocket message stays in memory for one event in it.
 */

import { ByteBuffer } from "flatbuffers";
import { AuthExpiring } from "../generated/conch/auth-expiring.js";
import { AuthRefreshed } from "../generated/conch/auth-refreshed.js";
import { ChannelOpened } from "../generated/conch/channel-opened.js";
import { Error as ErrorTable } from "../generated/conch/error.js";
import { EventBody } from "../generated/conch/event-body.js";
import { Goaway } from "../generated/conch/goaway.js";
import { MessageBody } from "../generated/conch/message-body.js";
import type { ChannelHead as ChannelHeadStruct } from "../generated/conch/channel-head.js";
import { SyncChanges } from "../generated/conch/sync-changes.js";
import type { U64 } from "../generated/conch/u64.js";
import { Welcome } from "../generated/conch/welcome.js";
import { type Shape, checkTable, shapes } from "./check.js";
import { FrameError } from "./error.js";
import { FRAME_BYTES_MAX, HEADER_BYTES } from "./limits.js";
import {
  type Ack, type ChannelHead, type ChannelKind, type Id, type Limits, type LogEvent, type Member, type PendingAnswer,
  type SyncRow, TABLE, channelKind, memberRole,
} from "./values.js";

export interface WelcomeFrame {
  is: "welcome";
  minor: number;
  features: Id;
  session: Id;
  user: Id;
  device: Id;
  timeMs: number;
  generation: number;
  inboxPosition: bigint;
  limits: Limits;
  pending: PendingAnswer[];
  resumed: boolean;
  node: string;
}

export interface ChannelOpenedFrame {
  is: "channel-opened";
  request: number;
  alias: number;
  head: ChannelHead;
  kind: ChannelKind;
  title: string;
  peer: Id | null;
  firstSeq: number;
  resync: boolean;
}

export interface SyncChangesFrame {
  is: "sync-changes";
  request: number;
  reset: boolean;
  more: boolean;
  rows: SyncRow[];
  token: Uint8Array;
}

export interface HistoryPageFrame {
  is: "history-page";
  request: number;
  channel: Id;
  generation: number;
  coveredFrom: number;
  coveredTo: number;
  firstSeq: number;
  headSeq: number;
  events: LogEvent[];
}

export interface ErrorFrame {
  is: "error";
  request: number;
  code: number;
  retryAfterMs: number;
  refusedType: number;
  item: number;
  detail: string;
}

export type ServerFrame =
  | WelcomeFrame
  | { is: "pushed"; alias: number; event: LogEvent }
  | { is: "send-ack"; request: number; acks: Ack[] }
  | { is: "channel-head"; head: ChannelHead }
  | { is: "sync-now" }
  | ChannelOpenedFrame
  | SyncChangesFrame
  | HistoryPageFrame
  | ErrorFrame
  | { is: "server-credit"; bytes: number }
  | { is: "pong"; nonce: number; inboxPosition: bigint }
  | { is: "goaway"; code: number; delayMinMs: number; delayMaxMs: number; endpoints: string[] }
  | { is: "auth-expiring"; expiresInMs: number }
  | { is: "auth-refreshed"; request: number; expiresInMs: number }
  | { is: "skipped"; type: number };

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const MAY_BE_SKIPPED = 0x80;
const COMPRESSED = 0x40;

/** Bytes in the order in which they come; throws where they end. */
class Reader {
  private readonly view: DataView;
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  private step(bytes: number): number {
    const at = this.at;
    if (at + bytes > this.bytes.length) throw new FrameError("a frame is shorter than its layout");
    this.at += bytes;
    return at;
  }

  u8(): number {
    return this.view.getUint8(this.step(1));
  }
  u16(): number {
    return this.view.getUint16(this.step(2), true);
  }
  u32(): number {
    return this.view.getUint32(this.step(4), true);
  }
  big(): bigint {
    const value = this.view.getBigUint64(this.step(8), true);
    if (value >> 63n) throw new FrameError("bit 63 of a number is set");
    return value;
  }
  id(): Id {
    return String(this.big());
  }
  time(): number {
    const lo = this.u32();
    return lo + this.u16() * 0x1_0000_0000;
  }
  take(bytes: number): Uint8Array {
    const at = this.step(bytes);
    return this.bytes.slice(at, at + bytes);
  }
  rest(): Uint8Array {
    return this.take(this.left);
  }
  get left(): number {
    return this.bytes.length - this.at;
  }
  end(): void {
    if (this.left !== 0) throw new FrameError("a frame is longer than its layout");
  }
}

function checked(body: Uint8Array, shape: Shape): ByteBuffer {
  checkTable(body, shape);
  return new ByteBuffer(body);
}

function big(value: U64 | null): bigint {
  const whole = value === null ? 0n : (BigInt(value.hi()) << 32n) | BigInt(value.lo());
  if (whole >> 63n) throw new FrameError("bit 63 of a number is set");
  return whole;
}

const id = (value: U64 | null): Id => String(big(value));
const maybeId = (value: U64 | null): Id | null => (value === null ? null : id(value));
const copied = (bytes: Uint8Array | null): Uint8Array => bytes?.slice() ?? new Uint8Array();

function headOf(head: ChannelHeadStruct | null): ChannelHead {
  if (head === null) throw new FrameError("a head is missing");
  return {
    channel: id(head.channel()),
    headSeq: head.headSeq(),
    headOrdinal: head.headOrdinal(),
    readSeq: head.readSeq(),
    readOrdinal: head.readOrdinal(),
    mentions: head.mentions(),
  };
}

function welcome(body: Uint8Array): WelcomeFrame {
  const table = Welcome.getRootAsWelcome(checked(body, shapes.welcome));
  const limits = table.limits()!;
  const pending: PendingAnswer[] = [];
  for (let i = 0; i < table.pendingLength(); i++) {
    const answer = table.pending(i)!;
    const timeMs = answer.tsLo() + answer.tsHi() * 0x1_0000_0000;
    if (answer.state() === 1) pending.push({ state: "stored", seq: answer.seq(), timeMs });
    else pending.push({ state: answer.state() === 2 ? "absent" : "unknown" });
  }
  return {
    is: "welcome",
    minor: table.minor(),
    features: id(table.features()),
    session: id(table.session()),
    user: id(table.user()),
    device: id(table.device()),
    timeMs: Number(big(table.time())),
    generation: table.generation(),
    inboxPosition: big(table.inboxPosition()),
    limits: { heartbeatMs: limits.heartbeatMs(), silenceMaxMs: limits.silenceMaxMs() },
    pending,
    resumed: table.resumed(),
    node: table.node() ?? "",
  };
}

function channelOpened(request: number, body: Uint8Array): ChannelOpenedFrame {
  const table = ChannelOpened.getRootAsChannelOpened(checked(body, shapes.channelOpened));
  return {
    is: "channel-opened",
    request,
    alias: table.alias(),
    head: headOf(table.head()),
    kind: channelKind(table.kind()),
    title: table.title() ?? "",
    peer: maybeId(table.peer()),
    firstSeq: table.firstSeq(),
    resync: table.resync(),
  };
}

function syncChanges(request: number, body: Uint8Array): SyncChangesFrame {
  const table = SyncChanges.getRootAsSyncChanges(checked(body, shapes.syncChanges));
  const rows: SyncRow[] = [];
  for (let i = 0; i < table.rowsLength(); i++) {
    const row = table.rows(i)!;
    rows.push({
      head: headOf(row.head()),
      kind: channelKind(row.kind()),
      role: memberRole(row.role()),
      firstSeq: row.firstSeq(),
      title: row.title() ?? "",
      peer: maybeId(row.peer()),
      leftSeq: row.leftSeq(),
    });
  }
  return { is: "sync-changes", request, reset: table.reset(), more: table.more(), rows, token: copied(table.tokenArray()) };
}

function historyPage(request: number, body: Uint8Array): HistoryPageFrame {
  const r = new Reader(body);
  const channel = r.id();
  const [generation, coveredFrom, coveredTo, firstSeq, headSeq] = [r.u32(), r.u32(), r.u32(), r.u32(), r.u32()];
  const [authorsLength, items] = [r.u16(), r.u16()];
  const authors: Id[] = [];
  for (let i = 0; i < authorsLength; i++) authors.push(r.id());
  const covered = coveredTo >= coveredFrom ? coveredTo - coveredFrom + 1 : 0;
  if (items !== covered) throw new FrameError("a page does not hold what it covers");
  const events: LogEvent[] = [];
  for (let i = 0; i < items; i++) {
    const [length, timeMs, index, kind, flags] = [r.u32(), r.time(), r.u16(), r.u8(), r.u8()];
    r.u16(); // pad
    const author = authors[index];
    if (author === undefined) throw new FrameError("an item names an author that the page does not have");
    events.push({ author, seq: coveredFrom + i, timeMs, kind, flags, tail: r.take(length) });
  }
  r.end();
  return { is: "history-page", request, channel, generation, coveredFrom, coveredTo, firstSeq, headSeq, events };
}

function event(body: Uint8Array): LogEvent {
  const r = new Reader(body);
  return { author: r.id(), seq: r.u32(), timeMs: r.time(), kind: r.u8(), flags: r.u8(), tail: r.rest() };
}

function acks(body: Uint8Array): Ack[] {
  const r = new Reader(body);
  const list: Ack[] = [];
  while (r.left > 0) list.push({ seq: r.u32(), timeMs: r.time(), flags: r.u16() });
  if (list.length === 0) throw new FrameError("an answer to a send is empty");
  return list;
}

function errorFrame(request: number, body: Uint8Array): ErrorFrame {
  const table = ErrorTable.getRootAsError(checked(body, shapes.error));
  return {
    is: "error",
    request,
    code: table.code(),
    retryAfterMs: table.retryAfterMs(),
    refusedType: table.refusedType(),
    item: table.item(),
    detail: table.detail() ?? "",
  };
}

function goaway(body: Uint8Array): ServerFrame {
  const table = Goaway.getRootAsGoaway(checked(body, shapes.goaway));
  const endpoints: string[] = [];
  for (let i = 0; i < table.endpointsLength(); i++) endpoints.push(table.endpoints(i));
  return { is: "goaway", code: table.code(), delayMinMs: table.delayMinMs(), delayMaxMs: table.delayMaxMs(), endpoints };
}

function decode(type: number, ref: number, body: Uint8Array): ServerFrame {
  const exact = <T>(read: (r: Reader) => T): T => {
    const r = new Reader(body);
    const value = read(r);
    r.end();
    return value;
  };
  switch (type) {
    case 0x21:
      return welcome(body);
    case 0x22:
    case 0x23:
      return { is: "pushed", alias: ref, event: event(body) };
    case 0x24:
      return { is: "send-ack", request: ref, acks: acks(body) };
    case 0x25:
      return exact((r) => ({
        is: "channel-head",
        head: { channel: r.id(), headSeq: r.u32(), headOrdinal: r.u32(), readSeq: r.u32(), readOrdinal: r.u32(), mentions: r.u32() },
      }));
    case 0x26:
      return exact(() => ({ is: "sync-now" }));
    case 0x27:
      return channelOpened(ref, body);
    case 0x28:
      return syncChanges(ref, body);
    case 0x29:
      return historyPage(ref, body);
    case 0x2d:
      return errorFrame(ref, body);
    case 0x2e:
      return exact((r) => ({ is: "server-credit", bytes: r.u32() }));
    case 0x2f:
      return exact((r) => ({ is: "pong", nonce: ref, inboxPosition: r.big() }));
    case 0x31:
      return goaway(body);
    case 0x32:
      return { is: "auth-expiring", expiresInMs: AuthExpiring.getRootAsAuthExpiring(checked(body, shapes.authExpiring)).expiresInMs() };
    case 0x33:
      return {
        is: "auth-refreshed",
        request: ref,
        expiresInMs: AuthRefreshed.getRootAsAuthRefreshed(checked(body, shapes.authRefreshed)).expiresInMs(),
      };
    default:
      if (type & COMPRESSED || !(type & MAY_BE_SKIPPED)) throw new FrameError("a frame of an unknown type");
      return { is: "skipped", type };
  }
}

/** The frames of one WebSocket message, each with its length in bytes. Throws {@link FrameError}. */
export function* serverFrames(message: Uint8Array): Generator<{ frame: ServerFrame; bytes: number }> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  if (message.length === 0) throw new FrameError("a message is empty");
  let at = 0;
  while (at < message.length) {
    if (at + HEADER_BYTES > message.length) throw new FrameError("a message ends within a frame");
    const head = view.getUint32(at, true);
    const bytes = HEADER_BYTES + (head >>> 8);
    if (bytes > FRAME_BYTES_MAX) throw new FrameError("a frame is too long");
    if (at + bytes > message.length) throw new FrameError("a message ends within a frame");
    yield { frame: decode(head & 0xff, view.getUint32(at + 4, true), message.subarray(at + HEADER_BYTES, at + bytes)), bytes };
    at += bytes;
  }
}

/** What an event of kind 16 and up says. Throws {@link FrameError}. */
export function eventBody(tail: Uint8Array): { channelKind: ChannelKind; title: string | null; members: Member[] } {
  const table = EventBody.getRootAsEventBody(checked(tail, shapes.eventBody));
  const members: Member[] = [];
  for (let i = 0; i < table.membersLength(); i++) {
    const member = table.members(i)!;
    members.push({ user: id(member.user()), role: memberRole(member.role()) });
  }
  return { channelKind: channelKind(table.channelKind()), title: table.title(), members };
}

/** Text and mentions of a message that has text. Throws {@link FrameError}. */
export function messageText(flags: number, tail: Uint8Array): { text: string; mentions: Id[] } {
  if (!(flags & TABLE)) return { text: utf8.decode(tail), mentions: [] };
  const r = new Reader(tail);
  const text = utf8.decode(r.take(r.u32()));
  const table = MessageBody.getRootAsMessageBody(checked(r.rest(), shapes.messageBody));
  const mentions: Id[] = [];
  for (let i = 0; i < table.mentionsLength(); i++) mentions.push(id(table.mentions(i)));
  return { text, mentions };
}
