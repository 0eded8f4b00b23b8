/**
 * A client: what an application holds. One per tab; several tabs of one account share one connection, outbox and store.
 *
 * The promises: a message given to {@link Client.send} survives crashes of page and node and arrives once, in the order in
 * which it was sent within its channel, or is refused for a stated reason; every event of a channel is given out once and in
 * order, over restarts too. `history` reads what this device holds and loads what it does not.
 */

import type { Command, Config } from "../core/core.js";
import { type ChannelInfo, type ConnectionState, type Message, readContent, readMessage } from "../core/event.js";
import type { Outcome } from "../core/out.js";
import type { OutboxItem } from "../core/outbox.js";
import type { Loaded } from "../core/persist.js";
import { textTail } from "../wire/client-frame.js";
import { Code } from "../wire/codes.js";
import { HISTORY_ITEMS_MAX, KEY_KEPT_MS, TEXT_CHARS_MAX } from "../wire/limits.js";
import { type Id, type MessageKey, toHex } from "../wire/values.js";
import { Api, ApiError, type ChannelMember, type Device, type Person } from "./api.js";
import { Channel } from "./channel.js";
import { Engine, type EngineEvent, cannotStore } from "./engine.js";
import type { Session } from "./session.js";
import { type Store, deleteStore, openStore } from "./store.js";
import { Tabs } from "./tabs.js";
import { type Timer, defaultTimer } from "./timer.js";
import type { ClientEvent, OutboxMessage, SendHandle, SendOptions, SendOutcome, StorageState } from "./events.js";

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
  /** Of these, those whose answer is awaited. */
  sending: MessageKey[];
  storage: StorageState;
}

const freshKey = (): MessageKey => toHex(crypto.getRandomValues(new Uint8Array(16)));
const nameOf = (session: Session): string => `conch:${session.user}:${session.device}`;
/** As many as fit into the 4,096 bytes beside a text. */
const MENTIONS_MAX = 400;
/** Of one {@link Client.range}. */
const RANGE_EVENTS_MAX = 1_000;

/** Why there is no page. */
const noAnswer = (outcome: Outcome | null): ApiError =>
  outcome?.is === "refused" ? new ApiError("refused", 0, `code ${outcome.code}`, 0) : new ApiError("offline", 0, "not connected", 0);

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
          if (!engine) throw cannotStore();
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
    const { core } = engine ?? {};
    return { connection, storage, channels: core?.channels() ?? [], outbox: core?.outboxItems() ?? [], sending: core?.sending() ?? [] };
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

  /** What is known of a channel; undefined before the node has spoken of it. */
  channelInfo(channel: Id): ChannelInfo | undefined {
    return this.known.get(channel);
  }

  /** A channel to work with; nothing is asked. */
  channel(channel: Id): Channel {
    return new Channel(this, channel);
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
    if (pending?.state !== "refused") throw new ApiError("not_refused", 0, "no message of this key was refused", 0);
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

  /**
   * Up to `items` events below `before` (null: the newest that this device holds), ascending. Loads from the node what is not
   * here; without a connection gives what is. Throws {@link ApiError} if that is nothing: `offline`, or `refused` by the node.
   */
  async history(channel: Id, before: number | null, items: number): Promise<Message[]> {
    for (;;) {
      const { heldFrom: from, heldTo: to } = this.known.get(channel) ?? { heldFrom: 1, heldTo: 0 };
      const below = before === null || before > to ? Infinity : before;
      const held = await this.messages(channel, items, below);
      const missing = items - held.length;
      if (missing <= 0) return held;
      // Also over what this device has let go of in between.
      const above = below === Infinity || held.length > 0 ? 0 : Math.max(from - below, 0);
      const outcome = await this.loadOlder(channel, Math.min(missing + above, HISTORY_ITEMS_MAX));
      const { is } = outcome;
      if (is === "loaded" && this.known.get(channel)?.heldFrom !== from) continue;
      if (held.length === 0 && (is === "offline" || is === "refused")) throw noAnswer(outcome);
      return is === "loaded" ? this.messages(channel, items, below) : held;
    }
  }

  /**
   * Up to `items` events above `after`, ascending. Those that this device does not hold are read from the node and not kept; empty:
   * there are none. Throws {@link ApiError}: `offline`, or `refused` by the node.
   */
  async newer(channel: Id, after: number, items: number): Promise<Message[]> {
    const { heldTo, headSeq, firstSeq } = this.known.get(channel) ?? { heldTo: 0, headSeq: 0, firstSeq: 1 };
    if (!(after < headSeq && items > 0)) return [];
    const held = await this.held(channel, after + 1, Math.min(after + items, heldTo));
    return held ?? this.loadRange(channel, Math.max(after + 1, firstSeq), headSeq, items);
  }

  /**
   * The events `from … to`, at most 1,000, ascending, as many as there are for us. Those that this device does not hold are read
   * from the node and not kept. Throws {@link ApiError}: `invalid` for a longer range, `offline`, or `refused` by the node.
   */
  async range(channel: Id, from: number, to: number): Promise<Message[]> {
    if (!(to - from < RANGE_EVENTS_MAX)) throw new ApiError("invalid", 0, `a range has at most ${RANGE_EVENTS_MAX} events`, 0);
    const first = Math.max(from, 1);
    const last = Math.min(to, this.known.get(channel)?.headSeq ?? to);
    if (first > last) return [];
    const held = await this.held(channel, first, last);
    if (held) return held;
    const found: Message[] = [];
    // Also above what this device has heard of.
    for (let next = first; next <= to; next = found.at(-1)!.seq + 1) {
      const page = await this.loadRange(channel, next, to, HISTORY_ITEMS_MAX);
      if (page.length === 0) break;
      found.push(...page);
    }
    return found;
  }

  /** The events `from … to` if this device holds all of them; null: it does not, or that is nothing. */
  private async held(channel: Id, from: number, to: number): Promise<Message[] | null> {
    const { heldFrom, heldTo } = this.known.get(channel) ?? { heldFrom: 1, heldTo: 0 };
    if (from > to || from < heldFrom || to > heldTo) return null;
    const messages = await this.messages(channel, to - from + 1, to + 1);
    // What was let go of meanwhile is read from the node.
    return messages.length === to - from + 1 ? messages : null;
  }

  private async loadRange(channel: Id, from: number, to: number, items: number): Promise<Message[]> {
    const outcome = await this.tabs.command({ is: "load-range", ticket: 0, channel, from, to, items });
    if (outcome?.is === "page") return outcome.messages;
    throw noAnswer(outcome);
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

  /** The one channel with this person, made if there is none; with oneself, one's own log. */
  async direct(user: Id): Promise<Channel> {
    return this.channel((await this.api.direct(user)).channel);
  }

  /** Makes a group. The same call with the same `idempotencyKey` makes one group, however often it is repeated. */
  async createGroup(title: string, members: Id[], idempotencyKey: string = crypto.randomUUID()): Promise<Channel> {
    return this.channel((await this.api.createGroup(title, members, idempotencyKey)).channel);
  }

  /** Everybody in a channel; without a connection those that this device knows of, if it knows. Throws {@link ApiError}. */
  async members(channel: Id): Promise<ChannelMember[]> {
    const asOf = this.known.get(channel)?.heldTo;
    try {
      const members = await this.api.members(channel);
      // What cannot be kept is asked for the next time.
      if (asOf !== undefined) this.tabs.command({ is: "keep-members", channel, asOf, members }).catch(() => {});
      return members;
    } catch (error) {
      const known = error instanceof ApiError && error.code === "unreachable" ? await this.knownMembers(channel) : [];
      if (known.length > 0) return known;
      throw error;
    }
  }

  /**
   * Everybody in a channel as far as this device knows, without asking the node: its last list, or the channel's first event, and
   * who came and went since. Empty: it does not know. Somebody whose names it does not know has empty ones.
   */
  async knownMembers(channel: Id): Promise<ChannelMember[]> {
    const members = (await this.store.members?.(channel)) ?? [];
    return members.sort((a, b) => a.joinedSeq - b.joinedSeq).map((it) => ({ handle: "", displayName: "", ...it }));
  }

  /** Adds people to a group. */
  async addMembers(channel: Id, users: Id[]): Promise<void> {
    await this.api.addMembers(channel, users);
  }

  /** Removes somebody from a group. */
  removeMember(channel: Id, user: Id): Promise<void> {
    return this.api.removeMember(channel, user);
  }

  /** Leaves a group. */
  leave(channel: Id): Promise<void> {
    return this.api.removeMember(channel, this.user);
  }

  /** Gives a group another title: 1 to 100 characters. */
  async rename(channel: Id, title: string): Promise<void> {
    await this.api.rename(channel, title);
  }

  /** The person of this handle. Throws {@link ApiError} `not_found`. */
  userByHandle(handle: string): Promise<Person> {
    return this.api.userByHandle(handle);
  }

  /** People by their ids; ids that nobody has are left out. */
  people(users: Id[]): Promise<Person[]> {
    return this.api.people(users);
  }

  /** All devices of this person that are logged in. */
  devices(): Promise<Device[]> {
    return this.api.devices();
  }

  /** Logs another device out, for good. */
  removeDevice(device: Id): Promise<void> {
    return this.api.removeDevice(device);
  }

  /** Stops in this tab. Another tab of the account goes on. */
  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    await this.tabs.close();
    this.store.close();
    if (!this.options.timer) this.timer.end?.();
    this.say({ is: "closed" });
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

  private onSnapshot({ connection, channels, outbox, sending, storage }: Snapshot): void {
    this.state = connection;
    this.known.clear();
    for (const info of channels) this.known.set(info.channel, info);
    this.outboxByKey.clear();
    for (const item of outbox) this.queued(item);
    for (const key of sending) this.change(key, { state: "sending" });
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
    const { channel, key, createdMs, refused, stored, after = Infinity } = item;
    const state = refused !== undefined ? "refused" : stored ? "sent" : "waiting";
    this.outboxByKey.set(key, { channel, key, text: readText(item.flags, item.tail), createdMs, after, state, code: refused ?? null });
    if (stored) this.settle(key, { is: "stored", ...stored });
  }

  /** Another object, so that who holds the one before sees that it changed. */
  private change(key: MessageKey, change: Partial<OutboxMessage>): void {
    const pending = this.outboxByKey.get(key);
    if (pending) this.outboxByKey.set(key, { ...pending, ...change });
  }

  private onSending(channel: Id, keys: MessageKey[]): void {
    const sending = new Set(keys);
    for (const { key, state } of this.outbox(channel)) {
      const now = sending.has(key) ? "sending" : "waiting";
      if (state !== now && state !== "sent" && state !== "refused") this.change(key, { state: now });
    }
    this.say({ is: "outbox", channel });
  }

  private onEvents(events: EngineEvent[]): void {
    for (const event of events) {
      switch (event.is) {
        case "queued":
          this.queued(event.item);
          break;
        case "send-stored":
          this.settle(event.key, { is: "stored", seq: event.seq, timeMs: event.timeMs });
          this.change(event.key, { state: "sent" });
          this.say(event);
          break;
        case "send-refused":
          this.settle(event.key, { is: "refused", code: event.code });
          this.change(event.key, { state: "refused", code: event.code });
          this.say(event);
          break;
        case "send-gone":
          // One that is sent again under its own key has a handle already, which waits on.
          if (this.handles.get(event.key)?.isAccepted) this.settle(event.key, { is: "cancelled" });
          this.outboxByKey.delete(event.key);
          break;
        case "outbox":
          this.onSending(event.channel, event.sending);
          break;
        case "message":
          if (event.message.key !== null) this.outboxByKey.delete(event.message.key);
          this.say(event);
          break;
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
          // No answer comes any more.
          for (const channel of new Set([...this.outboxByKey.values()].map((it) => it.channel))) this.onSending(channel, []);
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
