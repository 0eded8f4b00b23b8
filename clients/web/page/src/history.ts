/**
 * A window over one conversation's log: the run of messages that is drawn, which grows at both ends as the person scrolls and
 * is cut at the far one, so that ten thousand messages cost no more than a few hundred.
 *
 * Invariant: `messages` is ascending without a gap. While it follows, its newest end takes in what comes; elsewhere it stays
 * where it is, and nothing that the person looks at is cut.
 */

import type { Client, Id, Message } from "@conch/sdk";

export const PAGE = 60;
export const WINDOW_MAX = 240;
/** The node gives out so many at a time. */
const LOAD_ITEMS = 200;
/** What was missed for long is not all fetched to find where it begins: after so many loads it opens at its end. */
const LINE_LOADS_MAX = 10;
/** So many messages above the first new one, to remember what it was about. */
const CONTEXT = 20;

export class History {
  messages: Message[] = [];
  isLoaded = false;
  /** There is nothing older for this person. */
  isAtStart = false;
  /** What older messages could not be loaded for; null: nothing. */
  trouble: "offline" | "refused" | null = null;
  /** The newest message is in the window, and those that come are taken in. */
  follows = true;
  /** The person looks at the newest end: what leaves the window at the other one is not seen. */
  isWatchedAtEnd = true;
  private busy = false;
  private missed = false;
  /** Where to go once what runs is over. */
  private wanted: (() => Promise<void>) | null = null;

  constructor(
    private readonly client: Client,
    readonly channel: Id,
    /** Something changed. */
    private readonly changed: () => void,
  ) {}

  get first(): number {
    return this.messages[0]?.seq ?? 0;
  }
  get last(): number {
    return this.messages.at(-1)?.seq ?? 0;
  }
  private get heldTo(): number {
    return this.client.channelInfo(this.channel)?.heldTo ?? 0;
  }

  /** Goes to the newest messages. */
  async toEnd(): Promise<void> {
    await this.goTo(async () => {
      this.messages = await this.client.messages(this.channel, PAGE);
      this.follows = true;
    });
    if (this.messages.length < PAGE) await this.older();
  }

  /** Goes to where new messages begin: the first one above `readSeq`, or what comes nearest on this device. */
  async toLine(readSeq: number): Promise<void> {
    await this.goTo(async () => {
      await this.hold(readSeq + 1);
      const { firstSeq, heldFrom, heldTo } = this.client.channelInfo(this.channel) ?? { firstSeq: 0, heldFrom: 0, heldTo: 0 };
      const isFar = heldFrom > Math.max(readSeq + 1, firstSeq) && this.trouble === null;
      const line = Math.max(readSeq, heldFrom - 1);
      this.messages = isFar ? [] : await this.client.messages(this.channel, CONTEXT + PAGE, Math.min(line + PAGE, heldTo) + 1);
      if (this.messages.length === 0) this.messages = await this.client.messages(this.channel, PAGE);
      this.follows = this.last >= heldTo;
    });
    if (this.messages.length < PAGE) await this.older();
  }

  /** Makes this device hold `seq`, if that is not too far and there is a connection. */
  private async hold(seq: number): Promise<void> {
    for (let loads = 0; loads < LINE_LOADS_MAX; loads++) {
      const info = this.client.channelInfo(this.channel);
      if (!info || info.heldFrom <= Math.max(seq, info.firstSeq)) return;
      if (!(await this.load())) return;
    }
  }

  /** Another page from the node onto this device. Returns whether one came. */
  private async load(): Promise<boolean> {
    const outcome = await this.client.loadOlder(this.channel, LOAD_ITEMS);
    this.trouble = outcome.is === "offline" || outcome.is === "refused" ? outcome.is : null;
    return outcome.is === "loaded";
  }

  /** A message came: taken in if the window is at the end. */
  async follow(message: Message): Promise<void> {
    if (!this.follows || message.seq <= this.last) return;
    if (this.busy || !this.isLoaded || message.seq !== this.last + 1) return this.catchUp();
    this.add([message]);
    this.changed();
  }

  /** Takes in what came and was not followed. */
  async catchUp(): Promise<void> {
    if (!this.follows) return;
    if (this.busy) {
      this.missed = true;
      return;
    }
    await this.alone(async () => {
      const { last } = this;
      const newest = await this.client.messages(this.channel, PAGE);
      if (newest.length === 0 || newest.at(-1)!.seq <= last) return;
      if (last > 0 && newest[0]!.seq <= last + 1) this.add(newest.filter((it) => it.seq > last));
      else if (this.isWatchedAtEnd || last === 0) {
        this.messages = newest;
        this.isAtStart = false;
      } else this.follows = false;
      this.isLoaded = true;
    });
  }

  /** At the newest end. Who looks elsewhere keeps what they look at: then a full window follows no more. */
  private add(newer: Message[]): void {
    const all = [...this.messages, ...newer];
    if (all.length <= WINDOW_MAX) {
      this.messages = all;
    } else if (this.isWatchedAtEnd) {
      this.messages = all.slice(-WINDOW_MAX);
      this.isAtStart = false;
    } else {
      this.follows = false;
    }
  }

  /** One page further up, from this device or from the node. */
  async older(): Promise<void> {
    await this.alone(async () => {
      if (this.isAtStart) return;
      let page = await this.before();
      if (page.length === 0) {
        const came = await this.load();
        page = await this.before();
        this.isAtStart = !came && this.trouble === null && page.length === 0;
      }
      const all = [...page, ...this.messages];
      if (all.length > WINDOW_MAX) this.follows = false;
      this.messages = all.slice(0, WINDOW_MAX);
      this.isLoaded = true;
    });
  }

  private before(): Promise<Message[]> {
    return this.client.messages(this.channel, PAGE, this.messages.length > 0 ? this.first : undefined);
  }

  /** One page further down. */
  async newer(): Promise<void> {
    if (this.follows) return;
    await this.alone(async () => {
      const { last } = this;
      const page = (await this.client.messages(this.channel, PAGE, last + PAGE + 1)).filter((it) => it.seq > last);
      if (page[0]?.seq !== last + 1) {
        // Let go of while another tab had it closed: rather the newest than a gap.
        this.messages = await this.client.messages(this.channel, PAGE);
        this.isAtStart = false;
        this.follows = true;
        return;
      }
      const all = [...this.messages, ...page];
      if (all.length > WINDOW_MAX) this.isAtStart = false;
      this.messages = all.slice(-WINDOW_MAX);
      this.follows = this.last >= this.heldTo;
    });
  }

  /** Going elsewhere waits for what runs; the last wish counts. */
  private async goTo(work: () => Promise<void>): Promise<void> {
    const go = (): Promise<void> =>
      this.alone(async () => {
        this.trouble = null;
        await work();
        this.isLoaded = true;
        this.isAtStart = false;
      });
    if (this.busy) this.wanted = go;
    else await go();
  }

  private async alone(work: () => Promise<void>): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      await work();
    } finally {
      this.busy = false;
      this.changed();
    }
    const { wanted } = this;
    this.wanted = null;
    if (wanted) await wanted();
    if (!this.missed) return;
    this.missed = false;
    await this.catchUp();
  }
}
