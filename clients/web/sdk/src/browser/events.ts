/** What an application hears from a {@link Client}, and what it is told of its messages. The words are those of the Rust SDK. */

import type { ChannelInfo, ConnectionState, Message } from "../core/event.js";
import { Code } from "../wire/codes.js";
import type { Id, MessageKey } from "../wire/values.js";

/** A message of this device that is not among the channel's messages yet. */
export interface OutboxMessage {
  channel: Id;
  key: MessageKey;
  text: string;
  /** When it was written, ms since 1970 by this device's clock. */
  createdMs: number;
  /**
   * The newest event of the channel that this device held when it was written: one that is refused stands behind it. `Infinity`:
   * that is not known.
   */
  after: number;
  /**
   * `waiting`: kept on this device, goes out by itself. `sending`: on its way, the node's answer is awaited. `sent`: the node has
   * it, events before it are still to come. `refused`: it will not be sent, and is kept here, over restarts too, until
   * {@link Client.cancel}; or send it again.
   */
  state: "waiting" | "sending" | "sent" | "refused";
  /** Why it was refused. */
  code: number | null;
}

/** Something happened. `message`, `send-stored`, `send-refused`, `skipped` and so on mean what they mean in the Rust SDK. */
export type ClientEvent =
  | { is: "connection"; state: ConnectionState }
  /** The next event of a channel. */
  | { is: "message"; message: Message }
  /** A channel is new, or its name, marks, newest message or membership changed. */
  | { is: "channel"; info: ChannelInfo }
  | { is: "channel-removed"; channel: Id }
  /** What was shown of the channel is void: read it again. */
  | { is: "channel-reset"; channel: Id }
  /** These events are not to be had for us. Nothing below `to` is held any more: read the channel again. */
  | { is: "skipped"; channel: Id; from: number; to: number }
  /** The node has this message, for ever. */
  | { is: "send-stored"; channel: Id; key: MessageKey; seq: number; timeMs: number }
  /** The node has not and never will. Code 4103: it was given up after 7 days, and nobody knows. */
  | { is: "send-refused"; channel: Id; key: MessageKey; code: number }
  /** What this device still has to send into the channel is another list, or in another state. */
  | { is: "outbox"; channel: Id }
  /** The node asked for patience with this channel's messages; they go out by themselves. */
  | { is: "sends-delayed"; channel: Id; code: number; retryInMs: number }
  /** Whether messages can be kept on this device changed. */
  | { is: "storage"; state: StorageState }
  /** Everything may be another now: a new leader, or the first word of one. */
  | { is: "changed" }
  /** Logged out, here or in another tab. */
  | { is: "over" }
  /** This client was closed: nothing follows. */
  | { is: "closed" };

/** Where a device keeps its messages, and whether it can. */
export type StorageState =
  /** They outlive this tab. */
  | { is: "kept" }
  /** The same; but what was there could not be read. It is loaded from the node again. Of the unsent messages so many were kept. */
  | { is: "rebuilt"; unsentKept: number; unsentLost: number }
  /**
   * Everything works, for as long as this tab lives: the browser denies storage (private mode), or what is stored is of a newer
   * version of this package, which will find it as it was.
   */
  | { is: "memory"; why: "denied" | "newer" }
  /**
   * Nothing more can be stored, so nothing more is taken, and there is no connection. What was shown as waiting or stored is
   * safe. {@link Client.hurry} goes on when there is room again; so does coming back to the tab.
   */
  | { is: "full" }
  /** The same for another reason than room. */
  | { is: "failed" };

/** What became of a message. */
export type SendOutcome =
  /** The node has it for ever, at this place. */
  | { is: "stored"; seq: number; timeMs: number }
  /** The node has not and never will; with {@link Code}.outcomeUnknown it was given up after 7 days, and may have it. */
  | { is: "refused"; code: number }
  /** It was taken back before it left, or cancelled. */
  | { is: "cancelled" }
  /** This client was closed first, or the tab that sent it ended in between: {@link Client.outbox} tells. */
  | { is: "unknown" };

/** A message on its way. It goes on without this handle, too. */
export interface SendHandle {
  /** The message's name, by which events speak of it. */
  readonly key: MessageKey;
  /** How it ended, however long that takes. Never rejects. */
  readonly outcome: Promise<SendOutcome>;
}

/** What may be said of a message besides its text. */
export interface SendOptions {
  /** People that it mentions; ≤ 400. */
  mentions?: Id[];
}

/** What a person can do about a message that was refused. */
export type RefusalAdvice =
  /** The reason may be over by now. */
  | "retry"
  /** Look whether it is in the channel already, and retry it if it is not. */
  | "check-then-retry"
  /** Write it differently: this text is not taken. */
  | "edit"
  /** Nothing: the channel does not take messages from this person. */
  | "discard";

/** What to offer the person about a message that was refused with this code. */
export function refusalAdvice(code: number): RefusalAdvice {
  if (code === Code.outcomeUnknown) return "check-then-retry";
  if (code === Code.notFound || code === Code.forbidden || code === Code.channelFull) return "discard";
  return code === Code.invalid || code === Code.tooLarge || code === Code.badFrame ? "edit" : "retry";
}
