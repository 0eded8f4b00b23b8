/** The other direction of the codec, which only tests need: client frames read, node frames written. */

import { Builder, ByteBuffer } from "flatbuffers";
import { AuthExpiring } from "../src/generated/conch/auth-expiring.js";
import { AuthRefresh } from "../src/generated/conch/auth-refresh.js";
import { AuthRefreshed } from "../src/generated/conch/auth-refreshed.js";
import { ChannelHead as HeadStruct } from "../src/generated/conch/channel-head.js";
import { ChannelOpened } from "../src/generated/conch/channel-opened.js";
import { Error as ErrorTable } from "../src/generated/conch/error.js";
import { EventBody } from "../src/generated/conch/event-body.js";
import { EventMember } from "../src/generated/conch/event-member.js";
import { Goaway } from "../src/generated/conch/goaway.js";
import { Hello } from "../src/generated/conch/hello.js";
import { Limits as LimitsTable } from "../src/generated/conch/limits.js";
import { PendingAnswer as AnswerStruct } from "../src/generated/conch/pending-answer.js";
import { SyncChanges } from "../src/generated/conch/sync-changes.js";
import { SyncRow as SyncRowTable } from "../src/generated/conch/sync-row.js";
import { Sync } from "../src/generated/conch/sync.js";
import { U64 } from "../src/generated/conch/u64.js";
import { Welcome } from "../src/generated/conch/welcome.js";
import { checkTable, shapes } from "../src/wire/check.js";
import type { ClientFrame, Send } from "../src/wire/client-frame.js";
import type { ServerFrame } from "../src/wire/server-frame.js";
import { type ChannelHead, type Id, type LogEvent, type Member, halves, toHex } from "../src/wire/values.js";

const idFrom = (lo: number, hi: number): Id => String((BigInt(hi) << 32n) | BigInt(lo));

const kinds = ["unknown", "direct", "group", "self"];
const roles = ["", "member", "admin", "owner"];

function id(u: U64 | null): Id {
  return u ? idFrom(u.lo(), u.hi()) : "0";
}

function u64(b: Builder, value: bigint | Id): number {
  return U64.createU64(b, ...halves(String(value)));
}

/** A frame of any type. */
export function frame(type: number, ref: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, (type | (body.length << 8)) >>> 0, true);
  view.setUint32(4, ref, true);
  bytes.set(body, 8);
  return bytes;
}

function table(type: number, ref: number, build: (b: Builder) => number): Uint8Array {
  const b = new Builder(64);
  b.finish(build(b));
  return frame(type, ref, b.asUint8Array());
}

/** Bytes in order. */
class Writer {
  private readonly bytes: number[] = [];
  u8(n: number): this {
    this.bytes.push(n & 255);
    return this;
  }
  u16(n: number): this {
    return this.u8(n).u8(n >>> 8);
  }
  u32(n: number): this {
    return this.u16(n & 0xffff).u16(n >>> 16);
  }
  id(value: Id | bigint): this {
    const [lo, hi] = halves(String(value));
    return this.u32(lo).u32(hi);
  }
  time(ms: number): this {
    return this.u32(ms >>> 0).u16(Math.floor(ms / 0x1_0000_0000));
  }
  raw(bytes: Uint8Array): this {
    for (const byte of bytes) this.bytes.push(byte);
    return this;
  }
  done(): Uint8Array {
    return Uint8Array.from(this.bytes);
  }
}

export function eventTail(body: { channelKind?: number; title?: string; members?: Member[] }): Uint8Array {
  const b = new Builder(64);
  const title = body.title === undefined ? 0 : b.createString(body.title);
  EventBody.startMembersVector(b, body.members?.length ?? 0);
  for (const member of [...(body.members ?? [])].reverse()) {
    EventMember.createEventMember(b, ...halves(member.user), roles.indexOf(member.role), 0, 0);
  }
  const members = b.endVector();
  EventBody.startEventBody(b);
  if (body.channelKind) EventBody.addChannelKind(b, body.channelKind);
  if (title) EventBody.addTitle(b, title);
  EventBody.addMembers(b, members);
  b.finish(EventBody.endEventBody(b));
  return b.asUint8Array().slice();
}

function head(b: Builder, h: ChannelHead): number {
  return HeadStruct.createChannelHead(b, ...halves(h.channel), h.headSeq, h.headOrdinal, h.readSeq, h.readOrdinal, h.mentions);
}

export function encodeServerFrame(f: ServerFrame): Uint8Array {
  switch (f.is) {
    case "welcome":
      return table(0x21, 0, (b) => {
        const l = f.limits;
        const limits = LimitsTable.createLimits(
          b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, l.heartbeatMs, l.silenceMaxMs,
        );
        const node = b.createString(f.node);
        Welcome.startPendingVector(b, f.pending.length);
        for (const answer of [...f.pending].reverse()) {
          const [seq, ms] = answer.state === "stored" ? [answer.seq, answer.timeMs] : [0, 0];
          const state = { unknown: 0, stored: 1, absent: 2 }[answer.state];
          AnswerStruct.createPendingAnswer(b, seq, ms >>> 0, Math.floor(ms / 0x1_0000_0000), state, 0);
        }
        const pending = b.endVector();
        Welcome.startWelcome(b);
        Welcome.addMinor(b, f.minor);
        Welcome.addFeatures(b, u64(b, f.features));
        Welcome.addSession(b, u64(b, f.session));
        Welcome.addUser(b, u64(b, f.user));
        Welcome.addDevice(b, u64(b, f.device));
        Welcome.addTime(b, u64(b, String(f.timeMs)));
        Welcome.addGeneration(b, f.generation);
        Welcome.addInboxPosition(b, u64(b, f.inboxPosition));
        Welcome.addLimits(b, limits);
        Welcome.addPending(b, pending);
        Welcome.addResumed(b, f.resumed);
        Welcome.addNode(b, node);
        return Welcome.endWelcome(b);
      });
    case "pushed": {
      const e = f.event;
      const w = new Writer().id(e.author).u32(e.seq).time(e.timeMs).u8(e.kind).u8(e.flags).raw(e.tail);
      return frame(e.kind < 16 ? 0x22 : 0x23, f.alias, w.done());
    }
    case "send-ack": {
      const w = new Writer();
      for (const ack of f.acks) w.u32(ack.seq).time(ack.timeMs).u16(ack.flags);
      return frame(0x24, f.request, w.done());
    }
    case "channel-head": {
      const h = f.head;
      const w = new Writer().id(h.channel).u32(h.headSeq).u32(h.headOrdinal).u32(h.readSeq).u32(h.readOrdinal).u32(h.mentions);
      return frame(0x25, 0, w.done());
    }
    case "sync-now":
      return frame(0x26, 0, new Uint8Array());
    case "channel-opened":
      return table(0x27, f.request, (b) => {
        const title = b.createString(f.title);
        ChannelOpened.startChannelOpened(b);
        ChannelOpened.addAlias(b, f.alias);
        ChannelOpened.addHead(b, head(b, f.head));
        ChannelOpened.addKind(b, kinds.indexOf(f.kind));
        ChannelOpened.addTitle(b, title);
        if (f.peer !== null) ChannelOpened.addPeer(b, u64(b, f.peer));
        ChannelOpened.addFirstSeq(b, f.firstSeq);
        ChannelOpened.addResync(b, f.resync);
        return ChannelOpened.endChannelOpened(b);
      });
    case "sync-changes":
      return table(0x28, f.request, (b) => {
        const rows = f.rows.map((row) => {
          const title = b.createString(row.title);
          SyncRowTable.startSyncRow(b);
          SyncRowTable.addHead(b, head(b, row.head));
          SyncRowTable.addKind(b, kinds.indexOf(row.kind));
          SyncRowTable.addRole(b, roles.indexOf(row.role));
          SyncRowTable.addFirstSeq(b, row.firstSeq);
          SyncRowTable.addTitle(b, title);
          if (row.peer !== null) SyncRowTable.addPeer(b, u64(b, row.peer));
          if (row.leftSeq !== null) SyncRowTable.addLeftSeq(b, row.leftSeq);
          return SyncRowTable.endSyncRow(b);
        });
        const vector = SyncChanges.createRowsVector(b, rows);
        const token = SyncChanges.createTokenVector(b, f.token);
        SyncChanges.startSyncChanges(b);
        SyncChanges.addReset(b, f.reset);
        SyncChanges.addMore(b, f.more);
        SyncChanges.addRows(b, vector);
        SyncChanges.addToken(b, token);
        return SyncChanges.endSyncChanges(b);
      });
    case "history-page": {
      const authors = [...new Set(f.events.map((e) => e.author))];
      const w = new Writer().id(f.channel).u32(f.generation).u32(f.coveredFrom).u32(f.coveredTo).u32(f.firstSeq).u32(f.headSeq);
      w.u16(authors.length).u16(f.events.length);
      for (const author of authors) w.id(author);
      for (const e of f.events) {
        w.u32(e.tail.length).time(e.timeMs).u16(authors.indexOf(e.author)).u8(e.kind).u8(e.flags).u16(0).raw(e.tail);
      }
      return frame(0x29, f.request, w.done());
    }
    case "error":
      return table(0x2d, f.request, (b) => {
        const detail = b.createString(f.detail);
        return ErrorTable.createError(b, f.code, f.retryAfterMs, f.refusedType, f.item, detail);
      });
    case "server-credit":
      return frame(0x2e, 0, new Writer().u32(f.bytes).done());
    case "pong":
      return frame(0x2f, f.nonce, new Writer().id(f.inboxPosition).done());
    case "goaway":
      return table(0x31, 0, (b) => {
        const endpoints = Goaway.createEndpointsVector(b, f.endpoints.map((it) => b.createString(it)));
        return Goaway.createGoaway(b, f.code, f.delayMinMs, f.delayMaxMs, endpoints);
      });
    case "auth-expiring":
      return table(0x32, 0, (b) => AuthExpiring.createAuthExpiring(b, f.expiresInMs));
    case "auth-refreshed":
      return table(0x33, f.request, (b) => AuthRefreshed.createAuthRefreshed(b, f.expiresInMs));
    case "skipped":
      return frame(f.type, 0, new Uint8Array());
  }
}

function send(bytes: Uint8Array): Send {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    key: toHex(bytes.slice(0, 16)),
    alias: view.getUint32(16, true),
    kind: bytes[20]!,
    flags: bytes[21]!,
    tail: bytes.slice(24),
  };
}

/** One whole client frame; null for a type that this version does not have. */
export function decodeClientFrame(bytes: Uint8Array): ClientFrame | null {
  const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const type = bytes[0]!;
  const ref = header.getUint32(4, true);
  const body = bytes.slice(8);
  const view = new DataView(body.buffer);
  const idAt = (at: number): Id => idFrom(view.getUint32(at, true), view.getUint32(at + 4, true));
  switch (type) {
    case 0x01: {
      checkTable(body, shapes.hello);
      const t = Hello.getRootAsHello(new ByteBuffer(body));
      const frameOf: ClientFrame = {
        is: "hello",
        minor: t.minor(),
        token: t.token()!,
        client: t.client() ?? "",
        syncToken: t.syncTokenArray()?.slice() ?? new Uint8Array(),
        cursors: [],
        pending: [],
        replaces: t.replaces() ? id(t.replaces()) : null,
        creditBytes: t.creditBytes(),
        push: t.pushMode() === 1 ? "opened" : "all",
        features: id(t.features()),
      };
      for (let i = 0; i < t.cursorsLength(); i++) {
        const c = t.cursors(i)!;
        const at = c.cursor()!;
        frameOf.cursors.push({ channel: id(at.channel()), generation: at.generation(), seq: at.seq(), alias: c.alias() });
      }
      for (let i = 0; i < t.pendingLength(); i++) {
        const p = t.pending(i)!;
        frameOf.pending.push({ channel: id(p.channel()), key: toHex(Uint8Array.from({ length: 16 }, (_, k) => p.key(k)!)) });
      }
      return frameOf;
    }
    case 0x02:
      checkTable(body, shapes.authRefresh);
      return { is: "auth-refresh", request: ref, token: AuthRefresh.getRootAsAuthRefresh(new ByteBuffer(body)).token()! };
    case 0x03:
      return { is: "send", request: ref, send: send(body) };
    case 0x04: {
      const sends: Send[] = [];
      for (let at = 0; at < body.length; ) {
        const length = view.getUint32(at, true);
        sends.push(send(body.slice(at + 4, at + 4 + length)));
        at += 4 + length;
      }
      return { is: "send-many", request: ref, sends };
    }
    case 0x09:
      return { is: "read", request: ref, channel: idAt(0), seq: view.getUint32(8, true) };
    case 0x0c: {
      const cursor = { channel: idAt(0), generation: view.getUint32(8, true), seq: view.getUint32(12, true), alias: view.getUint32(16, true) };
      return { is: "open-channel", request: ref, cursor };
    }
    case 0x0d:
      return { is: "close-channel", alias: ref };
    case 0x0e:
      return {
        is: "history", request: ref, channel: idAt(0), from: view.getUint32(8, true), to: view.getUint32(12, true),
        itemsMax: view.getUint16(16, true), newest: (view.getUint16(18, true) & 1) === 1,
      };
    case 0x0f: {
      checkTable(body, shapes.sync);
      const t = Sync.getRootAsSync(new ByteBuffer(body));
      return { is: "sync", request: ref, token: t.tokenArray()?.slice() ?? new Uint8Array(), rowsMax: t.rowsMax() };
    }
    case 0x11:
      return { is: "credit", bytes: view.getUint32(0, true) };
    case 0x12:
      return { is: "ping", nonce: ref };
    case 0x13:
      return { is: "goodbye" };
    default:
      return null;
  }
}

/** The client frames of one message. */
export function clientFrames(message: Uint8Array): ClientFrame[] {
  const frames: ClientFrame[] = [];
  for (let at = 0; at < message.length; ) {
    const length = 8 + (new DataView(message.buffer, message.byteOffset + at).getUint32(0, true) >>> 8);
    const read = decodeClientFrame(message.slice(at, at + length));
    if (!read) throw new Error("a client frame of an unknown type");
    frames.push(read);
    at += length;
  }
  return frames;
}

export const text = (event: LogEvent): string => new TextDecoder().decode(event.tail);
