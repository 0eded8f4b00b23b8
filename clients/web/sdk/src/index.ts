/**
 * Conch in a browser. Start with {@link Session} and {@link Client}.
 *
 * @module @conch/sdk
 */

export { Api, ApiError, type ChannelDetails, type ChannelMember, type Device, type Login, type Person, type TokenSource } from "./browser/api.js";
export { Channel } from "./browser/channel.js";
export { Client, type ClientOptions } from "./browser/client.js";
export { Session, type SessionOwner, type TokenStore, localTokenStore } from "./browser/session.js";
export { type Store, openStore } from "./browser/store.js";
export {
  type ClientEvent, type OutboxMessage, type RefusalAdvice, type SendHandle, type SendOptions, type SendOutcome, type StorageState, refusalAdvice,
} from "./browser/events.js";
export { type Timer, defaultTimer, plainTimer, workerTimer } from "./browser/timer.js";
export { Core, type Command, type Config, type Input, defaultConfig } from "./core/core.js";
export type { ChannelInfo, ConnectionState, Content, Message, Preview, StopReason } from "./core/event.js";
export type { LinkCommand, Outcome, Outputs } from "./core/out.js";
export type { OutboxItem } from "./core/outbox.js";
export type { ChannelRow, Loaded, MemberRow, MessageRow, Meta, Persist } from "./core/persist.js";
export { Code } from "./wire/codes.js";
export type { ChannelKind, Id, Member, MemberRole, MessageKey } from "./wire/values.js";
