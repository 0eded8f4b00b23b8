/**
 * Values that frames carry, as this SDK holds them.
 *
 * Ids are decimal strings (63 bits do not fit a number), seqs and ordinals numbers, times numbers of milliseconds since
 * 1970, message keys 32 hex digits.
 */

/** A user, channel, device or session, as a decimal number. */
export type Id = string;
/** 16 bytes as 32 hex digits. */
export type MessageKey = string;

/** Flags of an event and, TABLE alone, of a send. */
export const TABLE = 1;
export const BODY_OMITTED = 2;
/** Flag of a send: not its first attempt. */
export const RETRY = 2;

/** One place in a channel's log. */
export interface LogEvent {
  author: Id;
  seq: number;
  timeMs: number;
  kind: number;
  flags: number;
  tail: Uint8Array;
}

export interface ChannelHead {
  channel: Id;
  headSeq: number;
  headOrdinal: number;
  readSeq: number;
  readOrdinal: number;
  mentions: number;
}

export interface Cursor {
  channel: Id;
  generation: number;
  seq: number;
  alias: number;
}

export interface Ack {
  seq: number;
  timeMs: number;
  flags: number;
}

export interface PendingSend {
  channel: Id;
  key: MessageKey;
}

export type PendingAnswer = { state: "unknown" | "absent" } | { state: "stored"; seq: number; timeMs: number };

/** Two people, a group, or one person's own log; `unknown`: of a newer version. */
export type ChannelKind = "direct" | "group" | "self" | "unknown";
/** What somebody may do in a channel. */
export type MemberRole = "member" | "admin" | "owner";

const kinds: readonly ChannelKind[] = ["unknown", "direct", "group", "self"];
const roles: readonly MemberRole[] = ["member", "member", "admin", "owner"];
export const channelKind = (n: number): ChannelKind => kinds[n] ?? "unknown";
export const memberRole = (n: number): MemberRole => roles[n] ?? "member";

/** A user in an event that changes members. */
export interface Member {
  user: Id;
  role: MemberRole;
}

/** What a node may set by itself; its other limits are those of the protocol, see `limits.ts`. */
export interface Limits {
  heartbeatMs: number;
  silenceMaxMs: number;
}

export interface SyncRow {
  head: ChannelHead;
  kind: ChannelKind;
  role: MemberRole;
  firstSeq: number;
  title: string;
  peer: Id | null;
  /** No longer in; the last seq that may be read. */
  leftSeq: number | null;
}

const HEX = "0123456789abcdef";

export function toHex(bytes: Uint8Array): string {
  let hex = "";
  for (const byte of bytes) hex += HEX[byte >> 4]! + HEX[byte & 15]!;
  return hex;
}

export function fromHex(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length >> 1);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** Low and high half of an id. Throws on what is not one. */
export function halves(id: Id): [lo: number, hi: number] {
  const value = BigInt(id);
  if (value < 0n || value >= 1n << 63n) throw new RangeError("an id is a number of 63 bits");
  return [Number(value & 0xffff_ffffn), Number(value >> 32n)];
}
