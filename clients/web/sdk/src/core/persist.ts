/**
 * What the core remembers between runs, as rows and as steps that change them.
 *
 * The caller stores all steps of one {@link Outputs} in one durable transaction, in order, before it carries out anything
 * else of them. That is the whole contract: no send leaves before its outbox row is safe, no event is given out and no sync
 * token moves without the rows that remember it. Rows are plain objects that IndexedDB stores as they are.
 */

import type { ChannelKind, Id, LogEvent, MemberRole, MessageKey } from "../wire/values.js";
import type { Preview } from "./event.js";
import type { MarksRow } from "./marks.js";
import type { OutboxItem } from "./outbox.js";

/** What is known beyond channels. */
export interface Meta {
  /** Whose this is; null before the first WELCOME. */
  user: Id | null;
  /** The node's store generation that channels and messages belong to; 0: none yet. */
  generation: number;
  /** The last session, which the next one replaces. */
  session: Id | null;
  syncToken: Uint8Array;
  /**
   * A full listing of channels. Which are ours is known only at its end, and a channel that was touched while it ran may be on
   * none of its pages; so one more sync (`check`) follows before channels that were not mentioned are taken for gone.
   */
  listing: { round: number; phase: "none" | "pages" | "check" };
}

/** A channel, as it is stored. */
export interface ChannelRow {
  channel: Id;
  kind: ChannelKind;
  title: string;
  peer: Id | null;
  role: MemberRole;
  firstSeq: number;
  leftSeq: number | null;
  /** `base … have` is stored without a hole. */
  base: number;
  have: number;
  /** Above `have`: a gap that is still to be fetched. */
  head: number;
  marks: MarksRow;
  /** Title and membership are as of this seq. */
  informedSeq: number;
  /** The listing's round that mentioned it last. */
  listed: number;
  used: number;
  /** The newest message that was seen. Not in rows of earlier versions. */
  last?: Preview | null;
}

/** An event of a channel, with the key if this device sent it. */
export interface MessageRow {
  channel: Id;
  event: LogEvent;
  key: MessageKey | null;
}

/** Somebody in a channel. Names are those of the node's last list of any channel; an event has none, and changes none. */
export interface MemberRow {
  user: Id;
  role: MemberRole;
  /** The event by which they came. */
  joinedSeq: number;
  handle?: string;
  displayName?: string;
}

/** One step of a transaction. */
export type Persist =
  | { put: "meta"; meta: Meta }
  | { put: "channel"; row: ChannelRow }
  /** A seq that is there already may be left as it is. */
  | { put: "message"; row: MessageRow }
  | { put: "outbox"; item: OutboxItem }
  /** `isAll`: these are all of the channel's members, and their list is known from here on; else they come to those that are there. */
  | { put: "members"; channel: Id; members: MemberRow[]; isAll: boolean }
  /** With its messages and members. */
  | { remove: "channel"; channel: Id }
  /** All messages of a channel go; the channel stays. */
  | { remove: "messages"; channel: Id }
  /** The messages of a channel below this seq go. */
  | { remove: "older-messages"; channel: Id; below: number }
  | { remove: "outbox"; id: number }
  | { remove: "members"; channel: Id; users: Id[] }
  /** All channels, messages and members go; the outbox stays. */
  | { remove: "everything-received" };

/** What was stored when the program last ended. */
export interface Loaded {
  meta: Meta;
  channels: ChannelRow[];
  /** In the order of their ids. */
  outbox: OutboxItem[];
  /** It could not be read, and was emptied but for so many messages that still wait to be sent. */
  rebuilt?: { unsentKept: number; unsentLost: number };
}

export const emptyMeta = (): Meta => ({
  user: null,
  generation: 0,
  session: null,
  syncToken: new Uint8Array(),
  listing: { round: 0, phase: "none" },
});
