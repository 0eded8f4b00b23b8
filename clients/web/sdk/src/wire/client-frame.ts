/** Frames from client to node, encoded. Pure; the node refuses what is wrong, so nothing is checked twice here. */

import { Builder } from "flatbuffers";
import { AuthRefresh } from "../generated/conch/auth-refresh.js";
import { Hello } from "../generated/conch/hello.js";
import { MessageBody } from "../generated/conch/message-body.js";
import { OpenCursor } from "../generated/conch/open-cursor.js";
import { PendingSend } from "../generated/conch/pending-send.js";
import { Sync } from "../generated/conch/sync.js";
import { U64 } from "../generated/conch/u64.js";
import { HEADER_BYTES } from "./limits.js";
import { type Cursor, type Id, type MessageKey, type PendingSend as Question, TABLE, fromHex, halves } from "./values.js";

export interface HelloFrame {
  is: "hello";
  minor: number;
  token: string;
  client: string;
  syncToken: Uint8Array;
  cursors: Cursor[];
  pending: Question[];
  replaces: Id | null;
  creditBytes: number;
  push: "all" | "opened";
  /** Feature bits asked for; this version defines none. */
  features?: Id;
}

export interface Send {
  key: MessageKey;
  alias: number;
  kind: number;
  flags: number;
  tail: Uint8Array;
}

export type ClientFrame =
  | HelloFrame
  | { is: "auth-refresh"; request: number; token: string }
  | { is: "send"; request: number; send: Send }
  | { is: "send-many"; request: number; sends: Send[] }
  | { is: "read"; request: number; channel: Id; seq: number }
  | { is: "open-channel"; request: number; cursor: Cursor }
  | { is: "close-channel"; alias: number }
  | { is: "history"; request: number; channel: Id; from: number; to: number; itemsMax: number; newest: boolean }
  | { is: "sync"; request: number; token: Uint8Array; rowsMax: number }
  | { is: "credit"; bytes: number }
  | { is: "ping"; nonce: number }
  | { is: "goodbye" };

const SEND_HEADER_BYTES = 24;
const ITEM_LENGTH_BYTES = 4;

function framed(type: number, ref: number, bodyBytes: number): [Uint8Array, DataView] {
  const bytes = new Uint8Array(HEADER_BYTES + bodyBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, (type | (bodyBytes << 8)) >>> 0, true);
  view.setUint32(4, ref, true);
  return [bytes, view];
}

function putId(view: DataView, at: number, id: Id): void {
  const [lo, hi] = halves(id);
  view.setUint32(at, lo, true);
  view.setUint32(at + 4, hi, true);
}

function putSend(bytes: Uint8Array, view: DataView, at: number, send: Send): number {
  bytes.set(fromHex(send.key), at);
  view.setUint32(at + 16, send.alias, true);
  bytes[at + 20] = send.kind;
  bytes[at + 21] = send.flags;
  bytes.set(send.tail, at + SEND_HEADER_BYTES);
  return at + SEND_HEADER_BYTES + send.tail.length;
}

function table(type: number, ref: number, build: (builder: Builder) => number): Uint8Array {
  const builder = new Builder(256);
  builder.finish(build(builder));
  const body = builder.asUint8Array();
  const [bytes] = framed(type, ref, body.length);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

function helloTable(b: Builder, hello: HelloFrame): number {
  const token = b.createString(hello.token);
  const client = b.createString(hello.client);
  const syncToken = hello.syncToken.length > 0 ? Hello.createSyncTokenVector(b, hello.syncToken) : 0;
  let cursors = 0;
  if (hello.cursors.length > 0) {
    Hello.startCursorsVector(b, hello.cursors.length);
    for (const cursor of hello.cursors.toReversed()) {
      const [lo, hi] = halves(cursor.channel);
      OpenCursor.createOpenCursor(b, lo, hi, cursor.generation, cursor.seq, cursor.alias);
    }
    cursors = b.endVector();
  }
  let pending = 0;
  if (hello.pending.length > 0) {
    Hello.startPendingVector(b, hello.pending.length);
    for (const { channel, key } of hello.pending.toReversed()) {
      const [lo, hi] = halves(channel);
      PendingSend.createPendingSend(b, lo, hi, Array.from(fromHex(key)));
    }
    pending = b.endVector();
  }
  Hello.startHello(b);
  Hello.addMinor(b, hello.minor);
  if (hello.features && hello.features !== "0") Hello.addFeatures(b, U64.createU64(b, ...halves(hello.features)));
  Hello.addToken(b, token);
  Hello.addClient(b, client);
  if (syncToken) Hello.addSyncToken(b, syncToken);
  if (cursors) Hello.addCursors(b, cursors);
  if (pending) Hello.addPending(b, pending);
  if (hello.replaces !== null) Hello.addReplaces(b, U64.createU64(b, ...halves(hello.replaces)));
  Hello.addCreditBytes(b, hello.creditBytes);
  Hello.addPushMode(b, hello.push === "opened" ? 1 : 0);
  return Hello.endHello(b);
}

/** The whole frame, header included. */
export function encodeClientFrame(frame: ClientFrame): Uint8Array {
  switch (frame.is) {
    case "hello":
      return table(0x01, 0, (b) => helloTable(b, frame));
    case "auth-refresh":
      return table(0x02, frame.request, (b) => {
        const token = b.createString(frame.token);
        return AuthRefresh.createAuthRefresh(b, token);
      });
    case "send": {
      const [bytes, view] = framed(0x03, frame.request, SEND_HEADER_BYTES + frame.send.tail.length);
      putSend(bytes, view, HEADER_BYTES, frame.send);
      return bytes;
    }
    case "send-many": {
      const lengths = frame.sends.map((send) => SEND_HEADER_BYTES + send.tail.length);
      const [bytes, view] = framed(0x04, frame.request, lengths.reduce((sum, it) => sum + ITEM_LENGTH_BYTES + it, 0));
      let at = HEADER_BYTES;
      frame.sends.forEach((send, i) => {
        view.setUint32(at, lengths[i]!, true);
        at = putSend(bytes, view, at + ITEM_LENGTH_BYTES, send);
      });
      return bytes;
    }
    case "read": {
      const [bytes, view] = framed(0x09, frame.request, 12);
      putId(view, 8, frame.channel);
      view.setUint32(16, frame.seq, true);
      return bytes;
    }
    case "open-channel": {
      const [bytes, view] = framed(0x0c, frame.request, 20);
      putId(view, 8, frame.cursor.channel);
      view.setUint32(16, frame.cursor.generation, true);
      view.setUint32(20, frame.cursor.seq, true);
      view.setUint32(24, frame.cursor.alias, true);
      return bytes;
    }
    case "close-channel":
      return framed(0x0d, frame.alias, 0)[0];
    case "history": {
      const [bytes, view] = framed(0x0e, frame.request, 20);
      putId(view, 8, frame.channel);
      view.setUint32(16, frame.from, true);
      view.setUint32(20, frame.to, true);
      view.setUint16(24, frame.itemsMax, true);
      view.setUint16(26, frame.newest ? 1 : 0, true);
      return bytes;
    }
    case "sync":
      return table(0x0f, frame.request, (b) => {
        const token = frame.token.length > 0 ? Sync.createTokenVector(b, frame.token) : 0;
        Sync.startSync(b);
        if (token) Sync.addToken(b, token);
        Sync.addRowsMax(b, frame.rowsMax);
        return Sync.endSync(b);
      });
    case "credit": {
      const [bytes, view] = framed(0x11, 0, 4);
      view.setUint32(8, frame.bytes, true);
      return bytes;
    }
    case "ping":
      return framed(0x12, frame.nonce, 0)[0];
    case "goodbye":
      return framed(0x13, 0, 0)[0];
  }
}

/** A text as the tail of a message, with its flags: bare, or with a table behind it when there is more to say. */
export function textTail(text: string, mentions: Id[]): { flags: number; tail: Uint8Array } {
  const bytes = new TextEncoder().encode(text);
  if (mentions.length === 0) return { flags: 0, tail: bytes };
  const b = new Builder(64);
  MessageBody.startMentionsVector(b, mentions.length);
  for (const user of mentions.toReversed()) U64.createU64(b, ...halves(user));
  b.finish(MessageBody.createMessageBody(b, b.endVector()));
  const table = b.asUint8Array();
  const tail = new Uint8Array(4 + bytes.length + table.length);
  new DataView(tail.buffer).setUint32(0, bytes.length, true);
  tail.set(bytes, 4);
  tail.set(table, 4 + bytes.length);
  return { flags: TABLE, tail };
}
