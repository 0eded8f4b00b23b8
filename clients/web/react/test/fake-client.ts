/** A client with a log of the test's own: what a device holds, what the node has besides, and what it is asked. */

import type { ChannelInfo, Client, ClientEvent, ConnectionState, Id, Message, OutboxMessage, StorageState } from "@conch/sdk";

export const textOf = ({ content }: Message): string => (content.is === "text" ? content.text : "");

export class FakeClient {
  connection: ConnectionState = { is: "connecting" };
  storage: StorageState = { is: "kept" };
  readonly listeners = new Set<(event: ClientEvent) => void>();
  /** Channels that are shown, and how often that was said. */
  readonly shown: Id[] = [];
  /** First and last seq that this device holds, and the last that exists. */
  heldFrom: number;
  heldTo: number;
  isOffline = false;
  isClosed = false;
  asked = 0;
  list: ChannelInfo[] = [];
  /** Channel 1. */
  one: ChannelInfo | undefined;
  private sending: OutboxMessage[] = [];

  constructor(held: [from: number, to: number] = [1, 0], public text: (seq: number) => string = (seq) => `m${seq}`) {
    [this.heldFrom, this.heldTo] = held;
  }

  /** As the hooks take it. */
  get client(): Client {
    return this as unknown as Client;
  }

  on(listener: (event: ClientEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  say(event: ClientEvent): void {
    for (const listener of this.listeners) listener(event);
  }

  /** Another object each time, as a store gives it. */
  message(seq: number): Message {
    return { channel: "1", seq, author: "7", timeMs: seq, key: null, content: { is: "text", text: this.text(seq), mentions: [] } };
  }

  info(change: Partial<ChannelInfo> = {}): ChannelInfo {
    return {
      channel: "1", kind: "group", title: "one", peer: null, role: "member", left: false, unread: 0, mentions: 0, firstSeq: 1,
      headSeq: this.heldTo, readSeq: 0, heldFrom: this.heldFrom, heldTo: this.heldTo, used: 1, last: null, ...change,
    };
  }

  channels(): ChannelInfo[] {
    return [...this.list];
  }

  channelInfo(channel: Id): ChannelInfo | undefined {
    if (channel !== "1") return undefined;
    if (this.one?.heldTo !== this.heldTo) this.one = this.info();
    return this.one;
  }

  async messages(_: Id, limit: number, before = Infinity): Promise<Message[]> {
    const to = Math.min(before - 1, this.heldTo);
    const from = Math.max(to - limit + 1, this.heldFrom);
    return Array.from({ length: Math.max(to - from + 1, 0) }, (_it, i) => this.message(from + i));
  }

  async loadOlder(_: Id, items = 100) {
    this.asked += 1;
    if (this.isOffline) return { is: "offline" as const };
    if (this.heldFrom <= 1) return { is: "at-start" as const };
    this.heldFrom = Math.max(this.heldFrom - items, 1);
    return { is: "loaded" as const };
  }

  /** Somebody writes. */
  arrive(): void {
    this.heldTo += 1;
    this.say({ is: "message", message: this.message(this.heldTo) });
  }

  async openChannel(channel: Id): Promise<void> {
    this.shown.push(channel);
  }

  async closeChannel(channel: Id): Promise<void> {
    this.shown.splice(this.shown.indexOf(channel), 1);
  }

  outbox(): OutboxMessage[] {
    return [...this.sending];
  }

  put(key: string, text: string, state: OutboxMessage["state"] | null): void {
    const pending: OutboxMessage = { channel: "1", key, text, createdMs: 0, after: this.heldTo, state: state ?? "waiting", code: state === "refused" ? 4403 : null };
    const at = this.sending.findIndex((it) => it.key === key);
    this.sending.splice(at < 0 ? this.sending.length : at, at < 0 ? 0 : 1, ...(state === null ? [] : [pending]));
    this.say({ is: "outbox", channel: "1" });
  }

  async send(_: Id, text: string) {
    const key = `key of ${text} ${this.sending.length}`;
    this.put(key, text, "waiting");
    return { key, outcome: new Promise<never>(() => {}) };
  }

  async retry(key: string) {
    const { text } = this.sending.find((it) => it.key === key)!;
    this.put(key, "", null);
    return this.send("1", text);
  }

  async cancel(key: string): Promise<void> {
    this.put(key, "", null);
  }

  async close(): Promise<void> {
    this.isClosed = true;
  }
}
