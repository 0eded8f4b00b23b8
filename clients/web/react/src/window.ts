/**
 * A window over one channel's log: the run of messages that is drawn. It grows at both ends as the person scrolls and is cut at
 * the far one, so that a long history costs no more than a short one.
 *
 * Invariant: `messages` ascends without a gap. At the newest end it takes in what comes; elsewhere it stays where it is. A
 * message that is in the window stays the same object.
 *
 * It listens to the client only while somebody listens to it, and then says to the client that the channel is shown.
 */

import type { Client, ClientEvent, Id, Message } from "@conch/sdk";

/** What is drawn of a channel. */
export interface MessagesState {
  /** Ascending, without a gap; `seq` is the key of an item. */
  messages: readonly Message[];
  /** There may be older ones. */
  hasOlder: boolean;
  /** The newest ones are not in the window. */
  hasNewer: boolean;
  /** What is being loaded. */
  loading: "newest" | "older" | "newer" | null;
  /** Why older messages could not be loaded; they are asked for again with the next `loadOlder`. */
  trouble: "offline" | "refused" | null;
}

const NOTHING: MessagesState = { messages: [], hasOlder: true, hasNewer: false, loading: "newest", trouble: null };

/** How often a channel is shown by windows of one client. */
const shown = new WeakMap<Client, Map<Id, number>>();

function show(client: Client, channel: Id, by: 1 | -1): void {
  const counts = shown.get(client) ?? new Map<Id, number>();
  shown.set(client, counts);
  const before = counts.get(channel) ?? 0;
  counts.set(channel, before + by);
  if (before === 0) client.openChannel(channel).catch(() => {});
  if (before + by === 0) client.closeChannel(channel).catch(() => {});
}

export class MessageWindow {
  private state: MessagesState = NOTHING;
  private readonly listeners = new Set<() => void>();
  private stop: (() => void) | null = null;
  /** Loads run one after the other. */
  private tail: Promise<void> = Promise.resolve();
  /** A load that began before this number does not count any more. */
  private life = 0;
  /** What is shown may not be taken over into what is shown next. */
  private isVoid = false;

  constructor(
    private readonly client: Client,
    private readonly channel: Id,
    private readonly page: number,
    private readonly max: number,
  ) {}

  readonly get = (): MessagesState => this.state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    if (!this.stop) {
      this.stop = this.client.on((event) => this.onEvent(event));
      show(this.client, this.channel, 1);
      // Also after a time in which nobody listened: what is there stays, what came is taken in.
      void (this.state.messages.length === 0 ? this.toNewest() : this.catchUp());
    }
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size > 0) return;
      this.stop?.();
      this.stop = null;
      show(this.client, this.channel, -1);
    };
  };

  private set(change: Partial<MessagesState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }

  private onEvent(event: ClientEvent): void {
    if (event.is === "changed") return void this.catchUp();
    if ("channel" in event && event.channel === this.channel && (event.is === "channel-reset" || event.is === "skipped")) {
      this.life += 1;
      this.isVoid = true;
      return void this.toNewest();
    }
    // The connection is back: what could not be loaded can be now.
    if (event.is === "connection" && event.state.is === "online" && this.state.trouble === "offline") return void this.loadOlder();
    if (event.is !== "message" || event.message.channel !== this.channel || this.state.hasNewer) return;
    const { messages, loading } = this.state;
    if (loading === null && messages.at(-1)?.seq === event.message.seq - 1) this.put([...messages, event.message], "oldest");
    else void this.catchUp();
  }

  /** Shows these, and cuts at one end what is too much. */
  private put(messages: readonly Message[], cut: "oldest" | "newest"): void {
    const known = new Map(this.isVoid ? [] : this.state.messages.map((it) => [it.seq, it]));
    this.isVoid = false;
    const all = messages.map((it) => known.get(it.seq) ?? it);
    if (all.length <= this.max) return this.set({ messages: all });
    if (cut === "oldest") this.set({ messages: all.slice(-this.max), hasOlder: true });
    else this.set({ messages: all.slice(0, this.max), hasNewer: true });
  }

  /** The newest messages, and what follows them. */
  readonly toNewest = (): Promise<void> =>
    this.alone("newest", (isOver) => this.showNewest(isOver));

  private async showNewest(isOver: () => boolean): Promise<void> {
    const newest = await this.client.messages(this.channel, this.page);
    if (isOver()) return;
    this.set({ hasNewer: false, hasOlder: true, trouble: null });
    this.put(newest, "oldest");
    if (newest.length < this.page) await this.extendUp(isOver);
  }

  /** One page further up, from this device or from the node. */
  readonly loadOlder = (): Promise<void> => this.alone("older", (isOver) => this.extendUp(isOver));

  private async extendUp(isOver: () => boolean): Promise<void> {
    if (!this.state.hasOlder) return;
    const before = (): Promise<Message[]> => this.client.messages(this.channel, this.page, this.state.messages[0]?.seq);
    let older = await before();
    if (older.length === 0) {
      const { is } = await this.client.loadOlder(this.channel, Math.min(this.page * 2, 200));
      older = await before();
      if (isOver()) return;
      this.set({ trouble: is === "offline" || is === "refused" ? is : null, hasOlder: is !== "at-start" || older.length > 0 });
    }
    if (!isOver() && older.length > 0) this.put([...older, ...this.state.messages], "newest");
  }

  /** One page further down. */
  readonly loadNewer = (): Promise<void> =>
    this.alone("newer", async (isOver) => {
      const last = this.state.messages.at(-1)?.seq;
      if (last === undefined || !this.state.hasNewer) return;
      const page = await this.client.messages(this.channel, this.page, last + this.page + 1);
      if (isOver()) return;
      const newer = page.filter((it) => it.seq > last);
      // The device let go of what follows (nobody else showed it): a gap must not be drawn.
      if (newer[0]?.seq !== last + 1) return this.showNewest(isOver);
      this.put([...this.state.messages, ...newer], "oldest");
      const held = this.client.channelInfo(this.channel)?.heldTo ?? 0;
      if ((newer.at(-1)?.seq ?? last) >= held) this.set({ hasNewer: false });
    });

  /** Takes in what came and was not followed. */
  private catchUp(): Promise<void> {
    return this.alone(null, async (isOver) => {
      if (this.state.hasNewer) return;
      const newest = await this.client.messages(this.channel, this.page);
      const { messages } = this.state;
      const last = messages.at(-1)?.seq;
      if (isOver() || newest.length === 0 || newest.at(-1)!.seq <= (last ?? 0)) return;
      const joins = last !== undefined && newest[0]!.seq <= last + 1;
      if (!joins) this.set({ hasOlder: true });
      this.put(joins ? [...messages, ...newest.filter((it) => it.seq > last)] : newest, "oldest");
    });
  }

  private alone(loading: MessagesState["loading"], work: (isOver: () => boolean) => Promise<void>): Promise<void> {
    const life = this.life;
    const isOver = (): boolean => life !== this.life;
    const run = async (): Promise<void> => {
      if (isOver()) return;
      if (loading) this.set({ loading });
      try {
        await work(isOver);
      } finally {
        if (loading) this.set({ loading: null });
      }
    };
    // A store that fails says so through the client; the next load does not depend on this one.
    this.tail = this.tail.then(run).catch(() => {});
    return this.tail;
  }
}
