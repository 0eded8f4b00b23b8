/**
 * A window on a channel: the messages to show, one's own that are on their way in their places. An entry of its own,
 * `@conch/sdk/view`, because not every application has a use for it.
 *
 * The window's top stands still while messages come in below, and moves up when older ones are asked for. Each look reads what
 * is stored at that moment; what {@link View.changed} tells is that another look will find something else. A look asks for the
 * outbox first and reads the log then: a message that moves from one to the other in between is seen in both, and its key tells
 * that it is one.
 *
 * @module @conch/sdk/view
 */

import type { Message } from "../core/event.js";
import type { Id } from "../wire/values.js";
import type { Client } from "./client.js";
import type { ClientEvent, OutboxMessage } from "./events.js";

/** Most events in a window; beyond it the oldest leave. */
const WINDOW_EVENTS_MAX = 2_000;

/** Something to show. */
export type ViewItem =
  /** An event of the log. */
  | { is: "message"; message: Message }
  /** A message of this device that is not in the log: on its way, or refused. */
  | { is: "outbox"; message: OutboxMessage };

/** What to show of a channel. Works without a connection. {@link View.close} it when it is not shown any more. */
export class View {
  /** The oldest event in the window; null before the first look, and while there is none. */
  private top: number | null = null;
  /** Something is another since the last look. */
  private isStale = false;
  private isClosed = false;
  private readonly waiting = new Set<() => void>();
  private readonly stop: () => void;

  /** The newest `items` events, and one's own messages that are not among them yet. Opens the channel; close that, too, when the person leaves. */
  static async open(client: Client, channel: Id, items: number): Promise<View> {
    await client.openChannel(channel);
    return new View(client, channel, items);
  }

  private constructor(
    private readonly client: Client,
    /** Whose. */
    readonly channel: Id,
    private readonly first: number,
  ) {
    this.stop = client.on((event) => this.onEvent(event));
  }

  /** Everything to show, from top to bottom. Rejects where what this device holds cannot be read. */
  async items(): Promise<ViewItem[]> {
    this.isStale = false;
    const outbox = this.client.outbox(this.channel);
    let messages = this.top === null ? [] : await this.from(this.top);
    if (messages.length === 0) messages = await this.client.messages(this.channel, this.first);
    this.top = messages[0]?.seq ?? null;
    return arrange(messages, outbox);
  }

  /**
   * Moves the top up by up to `items` events, which are loaded if this device does not hold them. False: there are none. Throws
   * `ApiError` as {@link Client.history} does: `offline`, or `refused` by the node.
   */
  async older(items: number): Promise<boolean> {
    const older = await this.client.history(this.channel, this.top, items);
    if (older.length === 0) return false;
    this.top = older[0]!.seq;
    return true;
  }

  /** Resolves when something of the channel is another since the last look: true. False: this view, or its client, was closed. */
  async changed(): Promise<boolean> {
    if (!this.isStale && !this.isClosed) await new Promise<void>((resolve) => this.waiting.add(resolve));
    return !this.isClosed;
  }

  /** Hears nothing any more. The channel stays open until {@link Client.closeChannel}. */
  close(): void {
    this.stop();
    this.isClosed = true;
    this.wake();
  }

  private onEvent(event: ClientEvent): void {
    if (event.is === "closed") return this.close();
    if (event.is !== "changed" && channelOf(event) !== this.channel) return;
    this.isStale = true;
    this.wake();
  }

  private wake(): void {
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
  }

  /** The newest events that this device holds, from `top` on. */
  private async from(top: number): Promise<Message[]> {
    const read = (to: number, before?: number): Promise<Message[]> =>
      this.client.messages(this.channel, Math.min(to - top + 1, WINDOW_EVENTS_MAX), before);
    const messages = await read(this.client.channelInfo(this.channel)?.heldTo ?? 0);
    const last = messages.at(-1)?.seq ?? 0;
    // What is stored may be ahead of what this tab has heard of.
    const isAhead = messages.length > 0 && messages[0]!.seq > top;
    return (isAhead ? await read(last, last + 1) : messages).filter((it) => it.seq >= top);
  }
}

function channelOf(event: ClientEvent): Id | undefined {
  if (event.is === "message") return event.message.channel;
  if (event.is === "channel") return event.info.channel;
  return "channel" in event ? event.channel : undefined;
}

/**
 * Messages in their order; what was refused behind the message that was the newest when it was written; at the end what is on its
 * way, in the order in which it was written.
 */
function arrange(messages: Message[], outbox: OutboxMessage[]): ViewItem[] {
  const placed = new Set(messages.map((it) => it.key));
  const top = messages[0]?.seq ?? 0;
  const bottom = messages.at(-1)?.seq ?? 0;
  const isBetween = ({ state, after }: OutboxMessage): boolean => state === "refused" && after < bottom;
  const own = outbox.filter((it) => !placed.has(it.key));
  // What stands above the window is seen when the window gets there.
  const between = own.filter((it) => isBetween(it) && it.after + 1 >= top).sort((a, b) => a.after - b.after);
  const items: ViewItem[] = [];
  for (const message of messages) {
    while (between[0] && between[0].after < message.seq) items.push({ is: "outbox", message: between.shift()! });
    items.push({ is: "message", message });
  }
  return [...items, ...own.filter((it) => !isBetween(it)).map((message) => ({ is: "outbox", message }) as const)];
}
