/** One channel to work with: the client's calls, with the channel's id filled in. Nothing is asked by having one. */

import type { ChannelInfo, Message } from "../core/event.js";
import type { Id } from "../wire/values.js";
import type { ChannelMember } from "./api.js";
import type { Client } from "./client.js";
import type { OutboxMessage, SendHandle, SendOptions } from "./events.js";

/** A channel of a {@link Client}; each method means what the client's of the same name does. */
export class Channel {
  /** As {@link Client.channel} does. */
  constructor(
    private readonly client: Client,
    /** Which one. */
    readonly id: Id,
  ) {}

  /** What this device knows of it; undefined before the node has spoken of it. */
  info(): ChannelInfo | undefined {
    return this.client.channelInfo(this.id);
  }
  /** See {@link Client.send}. */
  send(text: string, options?: SendOptions): Promise<SendHandle> {
    return this.client.send(this.id, text, options);
  }
  /** See {@link Client.outbox}. */
  outbox(): OutboxMessage[] {
    return this.client.outbox(this.id);
  }
  /** See {@link Client.history}. */
  history(before: number | null, items: number): Promise<Message[]> {
    return this.client.history(this.id, before, items);
  }
  /** See {@link Client.newer}. */
  newer(after: number, items: number): Promise<Message[]> {
    return this.client.newer(this.id, after, items);
  }
  /** See {@link Client.range}. */
  range(from: number, to: number): Promise<Message[]> {
    return this.client.range(this.id, from, to);
  }
  /** See {@link Client.markRead}. */
  markRead(seq: number): Promise<void> {
    return this.client.markRead(this.id, seq);
  }
  /** See {@link Client.openChannel}. */
  open(): Promise<void> {
    return this.client.openChannel(this.id);
  }
  /** See {@link Client.closeChannel}. */
  close(): Promise<void> {
    return this.client.closeChannel(this.id);
  }
  /** See {@link Client.members}. */
  members(): Promise<ChannelMember[]> {
    return this.client.members(this.id);
  }
  /** See {@link Client.knownMembers}. */
  knownMembers(): Promise<ChannelMember[]> {
    return this.client.knownMembers(this.id);
  }
  /** See {@link Client.addMembers}. */
  addMembers(users: Id[]): Promise<void> {
    return this.client.addMembers(this.id, users);
  }
  /** See {@link Client.removeMember}. */
  removeMember(user: Id): Promise<void> {
    return this.client.removeMember(this.id, user);
  }
  /** See {@link Client.leave}. */
  leave(): Promise<void> {
    return this.client.leave(this.id);
  }
  /** See {@link Client.rename}. */
  rename(title: string): Promise<void> {
    return this.client.rename(this.id, title);
  }
}
