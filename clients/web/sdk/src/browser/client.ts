/**
 * A client: what an application holds. One per tab; several tabs of one account share one connection, outbox and store.
 *
 * The promises: a message given to {@link Client.send} survives crashes of page and node and arrives once, in the order in
 * which it was sent within its channel, or is refused for a stated reason; every event of a channel is given out once and in
 * order, over restarts too. Reading goes to what this device holds; `loadOlder` makes it hold more.
 */

import type { Config } from "../core/core.js";
import { type ChannelInfo, type ConnectionState, type Message, readMessage } from "../core/event.js";
import type { Outcome } from "../core/out.js";
import type { OutboxItem } from "../core/outbox.js";
import { TEXT_CHARS_MAX } from "../wire/limits.js";
import { type Id, type MessageKey, toHex } from "../wire/values.js";
import { Api, ApiError } from "./api.js";
import { Engine, type EngineEvent } from "./engine.js";
import type { Session } from "./session.js";
import { type Store, deleteStore, openStore } from "./store.js";
import { type Leader, Tabs } from "./tabs.js";
import { type Timer, plainTimer } from "./timer.js";

/** A message of this device on its way. */
export interface Pending {
  channel: Id;
  key: MessageKey;
  text: string;
  createdMs: number;
  /**
   * `waiting`: kept on this device, goes out by itself. `stored`: the node has it, its place is a moment away. `refused`: it
   * will not be sent, and is kept here, over restarts too, until {@link Client.dismiss}; or send it again.
   */
  state: "waiting" | "stored" | "refused";
  /** Why it was refused. */
  code: number | null;
}

export type ClientEvent =
  | { is: "connection"; state: ConnectionState }
  /** The next event of a channel. */
  | { is: "message"; message: Message }
  /** A channel is new, or its name, marks or membership changed. */
  | { is: "channel"; info: ChannelInfo }
  | { is: "channel-removed"; channel: Id }
  /** What was shown of the channel is void: read it again. */
  | { is: "channel-reset"; channel: Id }
  /** The messages on their way in this channel changed. */
  | { is: "pending"; channel: Id }
  /** The node asked for patience with this channel's messages; they go out by themselves. */
  | { is: "sends-delayed"; channel: Id; code: number; retryInMs: number }
  /** Everything may be another now: a new leader, or the first word of one. */
  | { is: "changed" }
  /** Logged out, here or in another tab. */
  | { is: "over" };

export interface ClientOptions {
  /** Rings also in the background; see {@link workerTimer}. */
  timer?: Timer;
  config?: Partial<Config>;
}

interface Snapshot {
  connection: ConnectionState;
  channels: ChannelInfo[];
  outbox: OutboxItem[];
}

const nameOf = (session: Session): string => `conch:${session.user}:${session.device}`;
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

export class Client {
  readonly api: Api;
  private readonly tabs: Tabs;
  private readonly listeners = new Set<(event: ClientEvent) => void>();
  private readonly known = new Map<Id, ChannelInfo>();
  private readonly pendingByKey = new Map<MessageKey, Pending>();
  private state: ConnectionState = { is: "connecting" };
  private isClosed = false;
  private readonly cleanUp: (() => void)[] = [];

  /** Shows at once what this device holds, and connects. */
  static async open(session: Session, options: ClientOptions = {}): Promise<Client> {
    const store = await openStore(nameOf(session));
    return new Client(session, store, options);
  }

  private constructor(
    readonly session: Session,
    private readonly store: Store,
    private readonly options: ClientOptions,
  ) {
    this.api = new Api(session.server, (not) => session.accessToken(not));
    this.tabs = new Tabs(store.isPersistent ? nameOf(session) : null, {
      lead: () => this.lead(),
      onSnapshot: (snapshot) => this.onSnapshot(snapshot as Snapshot),
      onEvents: (events) => this.onEvents(events as EngineEvent[]),
      onOver: () => this.onOver(),
    });
  }

  private async lead(): Promise<Leader> {
    const loaded = await this.store.load().catch(() => null);
    if (!loaded) return this.cannotRead();
    const timer = this.options.timer ?? plainTimer();
    const engine = new Engine(this.session, this.store, timer, loaded, this.options.config ?? {}, (events) => this.tabs.events(events));
    this.onSnapshot({ connection: { is: "connecting" }, channels: engine.core.channels(), outbox: engine.core.outboxItems() });
    this.watch(engine);
    engine.input({ is: "start" }).catch(() => {});
    return {
      snapshot: (): Snapshot => ({ connection: this.state, channels: engine.core.channels(), outbox: engine.core.outboxItems() }),
      command: (command: Parameters<Engine["command"]>[0]) => engine.command(command),
      stop: async () => {
        for (const stop of this.cleanUp.splice(0)) stop();
        await engine.stop();
      },
    };
  }

  /** What this device remembers cannot be read: says so, and takes nothing that it could not keep. */
  private cannotRead(): Leader {
    const snapshot: Snapshot = { connection: { is: "stopped", reason: "storage", code: null }, channels: [], outbox: [] };
    this.onSnapshot(snapshot);
    return {
      snapshot: () => snapshot,
      command: () => Promise.reject(new ApiError("storage", 0, "what this device remembers cannot be read", 0)),
      stop: () => Promise.resolve(),
    };
  }

  /** The signs by which a browser says that the network, or the person, went or came back. */
  private watch(engine: Engine): void {
    const hurry = (): void => void engine.input({ is: "hurry" }).catch(() => {});
    const seen = (): void => {
      if (document.visibilityState === "visible") hurry();
    };
    const lost = (): void => engine.networkLost();
    const on = (target: EventTarget | undefined, name: string, handler: () => void): void => {
      target?.addEventListener(name, handler);
      this.cleanUp.push(() => target?.removeEventListener(name, handler));
    };
    on(globalThis.window, "online", hurry);
    on(globalThis.window, "offline", lost);
    on(globalThis.document, "visibilitychange", seen);
  }

  /** Who this is. */
  get user(): Id {
    return this.session.user;
  }

  /** Whether messages outlive this tab. */
  get isPersistent(): boolean {
    return this.store.isPersistent;
  }

  /** Whether this tab has the connection. */
  get isLeader(): boolean {
    return this.tabs.isLeader;
  }

  get connection(): ConnectionState {
    return this.state;
  }

  /** All channels, the one used last first. */
  channels(): ChannelInfo[] {
    return [...this.known.values()].sort((a, b) => b.used - a.used);
  }

  channel(channel: Id): ChannelInfo | undefined {
    return this.known.get(channel);
  }

  /** Messages of this device on their way, in order. */
  pending(channel: Id): Pending[] {
    return [...this.pendingByKey.values()].filter((it) => it.channel === channel);
  }

  /** Hears everything from now on; returns how to stop. */
  on(listener: (event: ClientEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * Sends a text. Resolves with its key when it is kept on this device: from then on it goes out by itself, however long that
   * takes. Throws {@link ApiError} `invalid` for a text that is empty or too long, `storage` where it cannot be kept.
   */
  async send(channel: Id, text: string): Promise<MessageKey> {
    // Scalar values, not UTF-16 units.
    const characters = text.length <= TEXT_CHARS_MAX ? text.length : [...text].length;
    if (characters === 0 || characters > TEXT_CHARS_MAX) throw new ApiError("invalid", 0, `a message has 1 to ${TEXT_CHARS_MAX} characters`, 0);
    const key = toHex(crypto.getRandomValues(new Uint8Array(16)));
    const tail = new TextEncoder().encode(text);
    await this.tabs.command({ is: "send", channel, key, kind: 1, flags: 0, tail, createdMs: Date.now() });
    return key;
  }

  /** Forgets a message that was refused, in all tabs. */
  async dismiss(key: MessageKey): Promise<void> {
    await this.tabs.command({ is: "dismiss", key });
  }

  /** The person has read up to here. */
  async markRead(channel: Id, seq: number): Promise<void> {
    await this.tabs.command({ is: "mark-read", channel, seq });
  }

  /** The application shows the channel: it is loaded before others. */
  async openChannel(channel: Id): Promise<void> {
    await this.tabs.command({ is: "open", channel });
  }

  /** Connects at once, instead of after the delay that runs. */
  async retryNow(): Promise<void> {
    await this.tabs.command({ is: "hurry" });
  }

  /** Up to `limit` events that this device holds, below `before`, ascending; without `before` the newest. */
  async messages(channel: Id, limit: number, before = Infinity): Promise<Message[]> {
    const rows = await this.store.messages(channel, before, limit);
    return rows.map((row) => readMessage(row.channel, row.event, row.key));
  }

  /** Makes this device hold up to `items` (≤ 200) events older than it does. */
  async loadOlder(channel: Id, items = 100): Promise<Outcome> {
    return (await this.tabs.command({ is: "load-older", ticket: 0, channel, items })) ?? { is: "offline" };
  }

  /** Stops in this tab. Another tab of the account goes on. */
  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    await this.tabs.close();
    this.store.close();
    this.listeners.clear();
  }

  /** Logs this device out, forgets everything here, in all tabs. Also where the node cannot be reached. */
  async logOut(): Promise<void> {
    try {
      await this.api.logOut();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Unreachable, or over already: the tokens are forgotten here all the same.
    }
    this.session.forget();
    this.tabs.over();
    await this.close();
    await deleteStore(nameOf(this.session));
  }

  private onOver(): void {
    this.say({ is: "over" });
    void this.close();
  }

  private onSnapshot({ connection, channels, outbox }: Snapshot): void {
    this.state = connection;
    this.known.clear();
    for (const info of channels) this.known.set(info.channel, info);
    this.pendingByKey.clear();
    for (const item of outbox) this.queued(item);
    this.say({ is: "changed" });
  }

  private queued(item: OutboxItem): void {
    const { channel, key, createdMs, refused } = item;
    const state = refused === undefined ? "waiting" : "refused";
    this.pendingByKey.set(key, { channel, key, text: utf8.decode(item.tail), createdMs, state, code: refused ?? null });
  }

  private onEvents(events: EngineEvent[]): void {
    for (const event of events) {
      switch (event.is) {
        case "queued":
          this.queued(event.item);
          this.say({ is: "pending", channel: event.item.channel });
          break;
        case "send-stored":
        case "send-refused": {
          const pending = this.pendingByKey.get(event.key);
          if (!pending) break;
          pending.state = event.is === "send-stored" ? "stored" : "refused";
          pending.code = event.is === "send-refused" ? event.code : null;
          this.say({ is: "pending", channel: event.channel });
          break;
        }
        case "send-dismissed":
          this.pendingByKey.delete(event.key);
          this.say({ is: "pending", channel: event.channel });
          break;
        case "message": {
          const { key, channel } = event.message;
          const wasPending = key !== null && this.pendingByKey.delete(key);
          this.say(event);
          if (wasPending) this.say({ is: "pending", channel });
          break;
        }
        case "connection":
          this.state = event.state;
          this.say(event);
          if (event.state.is === "stopped" && event.state.reason === "logged-out") this.say({ is: "over" });
          break;
        case "channel":
          this.known.set(event.info.channel, event.info);
          this.say(event);
          break;
        case "channel-removed":
          this.known.delete(event.channel);
          this.say(event);
          break;
        case "channel-reset":
          this.say(event);
          break;
        case "skipped":
          this.say({ is: "channel-reset", channel: event.channel });
          break;
        case "sends-delayed":
          this.say(event);
      }
    }
  }

  private say(event: ClientEvent): void {
    for (const listener of this.listeners) listener(event);
  }
}
