/**
 * A client: what an application holds. One per tab; several tabs of one account share one connection, outbox and store.
 *
 * The promises: a message given to {@link Client.send} survives crashes of page and node and arrives once, in the order in
 * which it was sent within its channel, or is refused for a stated reason; every event of a channel is given out once and in
 * order, over restarts too. Reading goes to what this device holds; `loadOlder` makes it hold more.
 */

import type { Command, Config } from "../core/core.js";
import { type ChannelInfo, type ConnectionState, type Message, readContent, readMessage } from "../core/event.js";
import type { Outcome } from "../core/out.js";
import type { OutboxItem } from "../core/outbox.js";
import type { Loaded } from "../core/persist.js";
import { textTail } from "../wire/client-frame.js";
import { Code } from "../wire/codes.js";
import { KEY_KEPT_MS, TEXT_CHARS_MAX } from "../wire/limits.js";
import { type Id, type MessageKey, toHex } from "../wire/values.js";
import { Api, ApiError } from "./api.js";
import { Engine, type EngineEvent } from "./engine.js";
import type { Session } from "./session.js";
import { type Store, deleteStore, openStore } from "./store.js";
import { Tabs } from "./tabs.js";
import { type Timer, defaultTimer } from "./timer.js";

/** A message of this device on its way. */
export interface OutboxMessage {
  channel: Id;
  key: MessageKey;
  text: string;
  createdMs: number;
  /**
   * `waiting`: kept on this device, goes out by itself. `stored`: the node has it, its place is a moment away. `refused`: it
   * will not be sent, and is kept here, over restarts too, until {@link Client.cancel}; or send it again.
   */
  state: "waiting" | "sent" | "refused";
  /** Why it was refused. */
  code: number | null;
}

/** Something happened. `message`, `send-stored`, `send-refused`, `skipped` and so on mean what they mean in the Rust SDK. */
export type ClientEvent =
  | { is: "connection"; state: ConnectionState }
  /** The next event of a channel. */
  | { is: "message"; message: Message }
  /** A channel is new, or its name, marks or membership changed. */
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
  /** The messages on their way in this channel changed. */
  | { is: "outbox"; channel: Id }
  /** The node asked for patience with this channel's messages; they go out by themselves. */
  | { is: "sends-delayed"; channel: Id; code: number; retryInMs: number }
  /** Whether messages can be kept on this device changed. */
  | { is: "storage"; state: StorageState }
  /** Everything may be another now: a new leader, or the first word of one. */
  | { is: "changed" }
  /** Logged out, here or in another tab. */
  | { is: "over" };

/** Settings of a {@link Client}; all have defaults. */
export interface ClientOptions {
  /** Rings also in the background; see {@link defaultTimer}, which is taken unless another is given. */
  timer?: Timer;
  /** Settings of the core. */
  config?: Partial<Config>;
  /** Where messages are kept, in place of {@link openStore}. */
  store?: Store;
  /** The WebSocket to use, where there is no global one: before Node 22, the package `ws`. */
  webSocket?: typeof WebSocket;
}

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

interface Handle {
  channel: Id;
  /** It is kept on this device. */
  isAccepted: boolean;
  settle: (outcome: SendOutcome) => void;
}

interface Snapshot {
  connection: ConnectionState;
  channels: ChannelInfo[];
  outbox: OutboxItem[];
  storage: StorageState;
}

const freshKey = (): MessageKey => toHex(crypto.getRandomValues(new Uint8Array(16)));
const nameOf = (session: Session): string => `conch:${session.user}:${session.device}`;
/** As many as fit into the 4,096 bytes beside a text. */
const MENTIONS_MAX = 400;

function readText(flags: number, tail: Uint8Array): string {
  const content = readContent({ kind: 1, flags, tail });
  return content.is === "text" ? content.text : "";
}

/** A chat client of one account on this device. */
export class Client {
  /** The HTTP calls, with this session's tokens. */
  readonly api: Api;
  private readonly tabs: Tabs;
  private readonly listeners = new Set<(event: ClientEvent) => void>();
  private readonly known = new Map<Id, ChannelInfo>();
  private readonly outboxByKey = new Map<MessageKey, OutboxMessage>();
  private readonly handles = new Map<MessageKey, Handle>();
  /** Channels that this tab shows. */
  private readonly shown = new Set<Id>();
  private state: ConnectionState = { is: "connecting" };
  private storageState: StorageState;
  private readonly timer: Timer;
  private isClosed = false;
  private readonly cleanUp: (() => void)[] = [];

  /** Shows at once what this device holds, and connects. Throws if there is no WebSocket here. */
  static async open(session: Session, options: ClientOptions = {}): Promise<Client> {
    const webSocket = options.webSocket ?? globalThis.WebSocket;
    if (!webSocket) throw new Error("there is no WebSocket here: give one as the option `webSocket`");
    const store = options.store ?? (await openStore(nameOf(session)));
    return new Client(session, store, options, webSocket);
  }

  private constructor(
    /** Who this is. */
    readonly session: Session,
    private readonly store: Store,
    private readonly options: ClientOptions,
    private readonly webSocket: typeof WebSocket,
  ) {
    this.api = new Api(session.server, (not) => session.accessToken(not));
    this.timer = options.timer ?? defaultTimer();
    this.storageState = store.isPersistent ? { is: "kept" } : { is: "memory", why: store.whyMemory ?? "denied" };
    this.tabs = new Tabs(store.isPersistent ? nameOf(session) : null, {
      lead: () => this.lead(),
      onSnapshot: (snapshot) => this.onSnapshot(snapshot as Snapshot),
      onEvents: (events) => this.onEvents(events as EngineEvent[]),
      onOver: () => this.onOver(),
    });
  }

  private async lead() {
    let engine = await this.startEngine();
    let starting: Promise<void> | null = null;
    const startAgain = async (): Promise<void> => {
      engine = await this.startEngine();
      this.tabs.renewed();
    };
    const hurry = async (): Promise<void> => {
      if (engine && !engine.hasFailed) return engine.input({ is: "hurry" });
      // The store holds everything that was promised: another engine goes on from there.
      starting ??= startAgain().finally(() => (starting = null));
      return starting;
    };
    this.watch(hurry, () => engine?.networkLost());
    return {
      snapshot: () => this.snapshot(engine),
      command: async (command: Command): Promise<Outcome | null> => {
        if (command.is !== "hurry") {
          if (!engine) throw new ApiError("storage", 0, "messages cannot be stored on this device", 0);
          return engine.command(command);
        }
        await hurry();
        return null;
      },
      stop: async () => {
        for (const stop of this.cleanUp.splice(0)) stop();
        await starting;
        await engine?.stop();
      },
    };
  }

  /** Goes on with what is stored; null if that cannot be read. */
  private async startEngine(): Promise<Engine | null> {
    const emit = (events: EngineEvent[]): void => this.tabs.events(events);
    let loaded: Loaded;
    try {
      loaded = await this.store.load();
    } catch {
      emit([{ is: "storage-failed", isFull: false }, { is: "connection", state: { is: "stopped", reason: "storage", code: null } }]);
      return null;
    }
    if (loaded.rebuilt) this.setStorage({ is: "rebuilt", ...loaded.rebuilt });
    else if (this.store.isPersistent) this.setStorage({ is: "kept" });
    const engine = new Engine(this.session, this.store, this.timer, loaded, this.options.config ?? {}, emit, this.webSocket);
    this.state = { is: "connecting" };
    this.onSnapshot(this.snapshot(engine));
    engine.input({ is: "start" }).catch(() => {});
    return engine;
  }

  private snapshot(engine: Engine | null): Snapshot {
    const { state: connection, storageState: storage } = this;
    return { connection, storage, channels: engine?.core.channels() ?? [], outbox: engine?.core.outboxItems() ?? [] };
  }

  /** The signs by which a browser says that the network, or the person, went or came back. */
  private watch(goOn: () => Promise<void>, lost: () => void): void {
    const hurry = (): void => void goOn().catch(() => {});
    const seen = (): void => {
      if (document.visibilityState === "visible") hurry();
    };
    const on = (target: EventTarget | undefined, name: string, handler: () => void): void => {
      target?.addEventListener(name, handler);
      this.cleanUp.push(() => target?.removeEventListener(name, handler));
    };
    on(globalThis.window, "online", hurry);
    on(globalThis.window, "offline", lost);
    on(globalThis.document, "visibilitychange", seen);
    // A page that was frozen, or kept for going back, comes with a connection that is long dead.
    on(globalThis.document, "resume", hurry);
    on(globalThis.window, "pageshow", hurry);
  }

  /** Who this is. */
  get user(): Id {
    return this.session.user;
  }

  /** Whether messages can be kept on this device. */
  get storage(): StorageState {
    return this.storageState;
  }

  /** Whether messages outlive this tab. */
  get isPersistent(): boolean {
    return this.store.isPersistent;
  }

  /** Whether this tab has the connection. */
  get isLeader(): boolean {
    return this.tabs.isLeader;
  }

  /** Where the connection stands. */
  get connection(): ConnectionState {
    return this.state;
  }

  /** All channels, the one used last first. */
  channels(): ChannelInfo[] {
    return [...this.known.values()].sort((a, b) => b.used - a.used);
  }

  /** One channel, if it is known here. */
  channel(channel: Id): ChannelInfo | undefined {
    return this.known.get(channel);
  }

  /** Messages of this device on their way, in order. */
  outbox(channel: Id): OutboxMessage[] {
    return [...this.outboxByKey.values()].filter((it) => it.channel === channel);
  }

  /** Hears everything from now on; returns how to stop. */
  on(listener: (event: ClientEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * Sends a text. Resolves when it is kept on this device: from then on it goes out by itself, in order, also after a crash; the
   * handle tells how it ended. Throws {@link ApiError}: `invalid` for a text that is empty or too long, `outbox_full` when
   * too many wait, `storage` where it cannot be kept.
   */
  async send(channel: Id, text: string, { mentions = [] }: SendOptions = {}): Promise<SendHandle> {
    // Scalar values, not UTF-16 units.
    const characters = text.length <= TEXT_CHARS_MAX ? text.length : [...text].length;
    if (characters === 0 || characters > TEXT_CHARS_MAX) throw new ApiError("invalid", 0, `a message has 1 to ${TEXT_CHARS_MAX} characters`, 0);
    if (mentions.length > MENTIONS_MAX) throw new ApiError("invalid", 0, `a message mentions at most ${MENTIONS_MAX} people`, 0);
    const key = freshKey();
    const { flags, tail } = textTail(text, mentions);
    return this.queue(channel, key, { is: "send", channel, key, kind: 1, flags, tail, createdMs: Date.now() });
  }

  private async queue(channel: Id, key: MessageKey, command: Command): Promise<SendHandle> {
    const handle: Handle = { channel, isAccepted: false, settle: () => {} };
    const outcome = new Promise<SendOutcome>((resolve) => (handle.settle = resolve));
    this.handles.set(key, handle);
    try {
      await this.tabs.command(command);
    } catch (error) {
      this.settle(key, { is: "unknown" });
      throw error;
    }
    handle.isAccepted = true;
    return { key, outcome };
  }

  private settle(key: MessageKey, outcome: SendOutcome): void {
    this.handles.get(key)?.settle(outcome);
    this.handles.delete(key);
  }

  /**
   * Sends a message that was refused once more, as the newest of its channel. It arrives once, also if an earlier attempt did
   * arrive; only one that is too old for that, or whose key is used up, goes under a new key. Throws as {@link Client.send}.
   */
  async retry(key: MessageKey): Promise<SendHandle> {
    const pending = this.outboxByKey.get(key);
    if (pending?.state !== "refused") throw new ApiError("not_found", 0, "no message of this key was refused", 0);
    const { channel, code, createdMs } = pending;
    const isSpent = code === Code.outcomeUnknown || code === Code.conflict || createdMs < Date.now() - KEY_KEPT_MS;
    const newKey = isSpent ? freshKey() : key;
    return this.queue(channel, newKey, { is: "retry", key, newKey, createdMs: isSpent ? Date.now() : createdMs });
  }

  /** Forgets a message that was refused, or takes back one that has never left, in all tabs. */
  async cancel(key: MessageKey): Promise<void> {
    await this.tabs.command({ is: "cancel", key });
  }

  /** The person has read up to here. */
  async markRead(channel: Id, seq: number): Promise<void> {
    await this.tabs.command({ is: "mark-read", channel, seq });
  }

  /** The application shows the channel: it is loaded before others, and with push mode *opened* at all. */
  async openChannel(channel: Id): Promise<void> {
    this.shown.add(channel);
    await this.tabs.command({ is: "open", channel });
  }

  /** The application shows the channel no longer. */
  async closeChannel(channel: Id): Promise<void> {
    this.shown.delete(channel);
    await this.tabs.command({ is: "close", channel });
  }

  /** Connects at once, instead of after the delay that runs; after a failure of the storage, tries that again. */
  async hurry(): Promise<void> {
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
    if (!this.options.timer) this.timer.end?.();
    this.listeners.clear();
    for (const key of [...this.handles.keys()]) this.settle(key, { is: "unknown" });
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

  private onSnapshot({ connection, channels, outbox, storage }: Snapshot): void {
    this.state = connection;
    this.known.clear();
    for (const info of channels) this.known.set(info.channel, info);
    this.outboxByKey.clear();
    for (const item of outbox) this.queued(item);
    this.setStorage(storage);
    this.say({ is: "changed" });
    // A new leader does not know what this tab shows, and may have settled what it did not hear of.
    for (const channel of this.shown) this.tabs?.command({ is: "open", channel }).catch(() => {});
    for (const [key, handle] of this.handles) {
      const code = this.outboxByKey.get(key)?.code ?? null;
      if (code !== null) this.settle(key, { is: "refused", code });
      else if (handle.isAccepted && !this.outboxByKey.has(key)) void this.lookUp(key, handle);
    }
  }

  /** What became of a message that left the outbox while nobody told this tab. */
  private async lookUp(key: MessageKey, { channel }: Handle): Promise<void> {
    const rows = await this.store.messages(channel, Infinity, 200).catch(() => []);
    const event = rows.find((row) => row.key === key)?.event;
    this.settle(key, event ? { is: "stored", seq: event.seq, timeMs: event.timeMs } : { is: "unknown" });
  }

  private setStorage(state: StorageState): void {
    const isSame = JSON.stringify(state) === JSON.stringify(this.storageState);
    this.storageState = state;
    if (!isSame) this.say({ is: "storage", state });
  }

  private queued(item: OutboxItem): void {
    const { channel, key, createdMs, refused, stored } = item;
    const state = refused !== undefined ? "refused" : stored ? "sent" : "waiting";
    this.outboxByKey.set(key, { channel, key, text: readText(item.flags, item.tail), createdMs, state, code: refused ?? null });
  }

  private onEvents(events: EngineEvent[]): void {
    for (const event of events) {
      switch (event.is) {
        case "queued":
          this.queued(event.item);
          this.say({ is: "outbox", channel: event.item.channel });
          break;
        case "send-stored":
        case "send-refused": {
          const pending = this.outboxByKey.get(event.key);
          if (event.is === "send-stored") this.settle(event.key, { is: "stored", seq: event.seq, timeMs: event.timeMs });
          else this.settle(event.key, { is: "refused", code: event.code });
          const [state, code] = event.is === "send-stored" ? (["sent", null] as const) : (["refused", event.code] as const);
          // Another object, so that who holds the one before sees that it changed.
          if (pending) this.outboxByKey.set(event.key, { ...pending, state, code });
          this.say(event);
          if (pending) this.say({ is: "outbox", channel: event.channel });
          break;
        }
        case "send-cancelled":
          // One that is sent again under its own key has a handle already, which waits on.
          if (this.handles.get(event.key)?.isAccepted) this.settle(event.key, { is: "cancelled" });
          this.outboxByKey.delete(event.key);
          this.say({ is: "outbox", channel: event.channel });
          break;
        case "message": {
          const { key, channel } = event.message;
          const wasPending = key !== null && this.outboxByKey.delete(key);
          this.say(event);
          if (wasPending) this.say({ is: "outbox", channel });
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
        case "view-closed":
          if (this.shown.has(event.channel)) void this.openChannel(event.channel).catch(() => {});
          break;
        case "storage-failed":
          this.setStorage({ is: event.isFull ? "full" : "failed" });
          break;
        case "channel-reset":
        case "skipped":
        case "sends-delayed":
          this.say(event);
      }
    }
  }

  private say(event: ClientEvent): void {
    for (const listener of this.listeners) listener(event);
  }
}
