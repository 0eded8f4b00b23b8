/**
 * A window over one conversation's log: the run of messages that is drawn, which grows at both ends as the person scrolls and
 * is cut at the far one, so that ten thousand messages cost no more than a few hundred.
 *
 * Invariant: `messages` is ascending without a gap. At the newest end it follows what comes; elsewhere it stays where it is.
 */

import type { Client, Id, Message } from "@conch/sdk";

const PAGE = 60;
const WINDOW_MAX = 240;

export class History {
  messages: Message[] = [];
  isLoaded = false;
  /** There is nothing older for this person. */
  isAtStart = false;
  /** What older messages could not be loaded for; null: nothing. */
  trouble: "offline" | "refused" | null = null;
  /** The newest message is in the window, and those that come are taken in. */
  follows = true;
  private busy = false;
  private missed = false;

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
    return this.client.channel(this.channel)?.heldTo ?? 0;
  }

  /** Goes to the newest messages. */
  async toEnd(): Promise<void> {
    await this.alone(async () => {
      this.messages = await this.client.messages(this.channel, PAGE);
      this.isLoaded = true;
      this.isAtStart = false;
      this.follows = true;
    });
    if (this.messages.length < PAGE) await this.older();
  }

  /** A message came: taken in if the window is at the end. */
  async follow(message: Message): Promise<void> {
    if (!this.follows || message.seq <= this.last) return;
    if (this.busy || !this.isLoaded || message.seq !== this.last + 1) return this.catchUp();
    this.messages = [...this.messages, message];
    this.cutTop();
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
      const joins = newest[0]!.seq <= last + 1 && last > 0;
      this.messages = joins ? [...this.messages, ...newest.filter((it) => it.seq > last)] : newest;
      if (!joins) this.isAtStart = false;
      this.isLoaded = true;
      this.cutTop();
    });
  }

  private cutTop(): void {
    if (this.messages.length <= WINDOW_MAX) return;
    this.messages = this.messages.slice(-WINDOW_MAX);
    this.isAtStart = false;
  }

  /** One page further up, from this device or from the node. */
  async older(): Promise<void> {
    await this.alone(async () => {
      if (this.isAtStart) return;
      let page = await this.before();
      if (page.length === 0) {
        const outcome = await this.client.loadOlder(this.channel, 120);
        this.trouble = outcome.is === "offline" || outcome.is === "refused" ? outcome.is : null;
        page = await this.before();
        this.isAtStart = outcome.is === "at-start" && page.length === 0;
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
      this.messages = [...this.messages, ...page].slice(-WINDOW_MAX);
      if (this.messages.length === WINDOW_MAX) this.isAtStart = false;
      this.follows = this.last >= this.heldTo;
    });
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
    if (!this.missed) return;
    this.missed = false;
    await this.catchUp();
  }
}
