/**
 * What an application hears.
 *
 * Messages of a channel come in the order of its log, each exactly once, also over restarts: an event is given out only with
 * the storage that remembers it. An own message is shown under its key from `send` on; `send-stored` says that it is safe,
 * `message` with the same key says where it stands among the others.
 */

import { eventBody, messageText } from "../wire/server-frame.js";
import { type ChannelKind, type Id, type LogEvent, type Member, type MemberRole, type MessageKey, TABLE } from "../wire/values.js";
import type { Ms } from "./backoff.js";

/** Where the connection stands. */
export type ConnectionState =
  /** The next attempt is in so many milliseconds. `code` says why the last one ended, if the node said. */
  | { is: "offline"; retryInMs: Ms; code: number | null }
  | { is: "connecting" }
  | { is: "online" }
  /** No further attempt is made. */
  | { is: "stopped"; reason: StopReason; code: number | null };

/** Why no further attempt is made. */
export type StopReason =
  /** The application asked for it. */
  | "closed"
  /** There is no token to be had: log in again. */
  | "logged-out"
  /** The node ended it for good: device revoked, account closed, flooding. */
  | "ended"
  | "unsupported-version"
  /** What is stored here belongs to another account. */
  | "wrong-account"
  /** What has to be remembered cannot be stored. */
  | "storage";

/** One event of a channel's log. */
export interface Message {
  channel: Id;
  seq: number;
  author: Id;
  /** ms since 1970 by the node's clock. */
  timeMs: number;
  /** Set when this device sent it. */
  key: MessageKey | null;
  content: Content;
}

/** What an event says. */
export type Content =
  | { is: "text"; text: string; mentions: Id[] }
  /** A message that is not text; `kind` is its number in the protocol. */
  | { is: "payload"; kind: number; bytes: Uint8Array }
  | { is: "created"; title: string; members: Member[] }
  | { is: "members-added"; members: Member[] }
  | { is: "member-removed"; members: Member[] }
  | { is: "member-left"; members: Member[] }
  | { is: "renamed"; title: string }
  /** Of a newer version, or not readable. */
  | { is: "unknown"; kind: number };

/** A channel as this user sees it. */
export interface ChannelInfo {
  channel: Id;
  kind: ChannelKind;
  /** Of a group; empty for a direct channel. */
  title: string;
  /** Direct channel: the other person. */
  peer: Id | null;
  role: MemberRole;
  /** We are not a member any more; what came before can be read. */
  left: boolean;
  unread: number;
  mentions: number;
  /** First seq that there is for us. */
  firstSeq: number;
  /** The newest seq that is known to exist. */
  headSeq: number;
  readSeq: number;
  /** This device holds `heldFrom … heldTo` without a hole. */
  heldFrom: number;
  heldTo: number;
  /** Order of last use on this device; higher is later. */
  used: number;
  /** The newest message that this device has seen. */
  last: Preview | null;
}

/** The newest message of a channel, for a list of channels. */
export interface Preview {
  seq: number;
  author: Id;
  /** ms since 1970 by the node's clock. */
  timeMs: number;
  /** The number of its kind in the protocol. */
  kind: number;
  /** Its first 160 characters; empty when it is no text. */
  text: string;
}

export type Event =
  | { is: "connection"; state: ConnectionState }
  | { is: "message"; message: Message }
  /** The node has this message, for ever. */
  | { is: "send-stored"; channel: Id; key: MessageKey; seq: number; timeMs: number }
  /** The node has not and never will. The text is kept until it is cancelled. */
  | { is: "send-refused"; channel: Id; key: MessageKey; code: number }
  /** The outbox has it no more: it was cancelled, or the node has it at a place that is passed here. */
  | { is: "send-gone"; channel: Id; key: MessageKey }
  /** What is still to be sent into the channel is another list, or in another state; of these the node's answer is awaited. */
  | { is: "outbox"; channel: Id; sending: MessageKey[] }
  /** The channel's messages wait because the node asked for patience; they go out by themselves. */
  | { is: "sends-delayed"; channel: Id; code: number; retryInMs: Ms }
  | { is: "channel"; info: ChannelInfo }
  | { is: "channel-removed"; channel: Id }
  /** What was known of the channel is void: show nothing of it and read its history again. */
  | { is: "channel-reset"; channel: Id }
  /** These events are not to be had for us. */
  | { is: "skipped"; channel: Id; from: number; to: number };

export const FIRST_KIND_OF_CHANGES = 16;
export const isMessageKind = (kind: number): boolean => kind >= 1 && kind < FIRST_KIND_OF_CHANGES;

/** Reads an event of a log. Never fails: what cannot be read says so. */
export function readMessage(channel: Id, event: LogEvent, key: MessageKey | null): Message {
  return { channel, seq: event.seq, author: event.author, timeMs: event.timeMs, key, content: readContent(event) };
}

const PREVIEW_CHARS_MAX = 160;

/** Of an event that is a message. */
export function previewOf(event: LogEvent): Preview {
  const { seq, author, timeMs, kind } = event;
  const content = readContent(event);
  return { seq, author, timeMs, kind, text: content.is === "text" ? [...content.text].slice(0, PREVIEW_CHARS_MAX).join("") : "" };
}

/** The content of an event body; `unknown` for what this version cannot read. */
export function readContent(event: Pick<LogEvent, "kind" | "flags" | "tail">): Content {
  const { kind, flags, tail } = event;
  try {
    if (kind === 1 || kind === 4 || ((kind === 2 || kind === 3) && flags & TABLE)) return { is: "text", ...messageText(flags, tail) };
    if (kind === 2 || kind === 3) return { is: "payload", kind, bytes: tail };
    if (kind < FIRST_KIND_OF_CHANGES || kind > 20) return { is: "unknown", kind };
    const { title, members } = eventBody(tail);
    if (kind === 16) return { is: "created", title: title ?? "", members };
    if (kind === 17) return { is: "members-added", members };
    if (kind === 18) return { is: "member-removed", members };
    if (kind === 19) return { is: "member-left", members };
    return { is: "renamed", title: title ?? "" };
  } catch {
    return { is: "unknown", kind };
  }
}
