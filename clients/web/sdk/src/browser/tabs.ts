/**
 * Several tabs of one device: one leads, all show the same.
 *
 * The leader is who holds a Web Lock; the browser gives it to the next tab when the leader's is closed or crashes. The leader
 * has the engine and tells everybody what happens over a BroadcastChannel; the others send it their commands, and send those
 * that were not answered again to the next leader. (A message keeps its key, so it is not sent twice by that.)
 *
 * Without Web Locks or BroadcastChannel, or where the tabs have no store in common, each tab leads itself.
 */

import type { Command } from "../core/core.js";
import type { Outcome } from "../core/out.js";
import { ApiError } from "./api.js";

/** What a tab that comes later has to know. */
export type Snapshot = unknown;

type Note =
  | { is: "here"; snapshot: Snapshot; to: string | null }
  | { is: "events"; events: unknown[] }
  | { is: "answer"; to: string; ticket: number; outcome: Outcome | null; error: { code: string; detail: string } | null }
  | { is: "who" ; from: string }
  | { is: "command"; from: string; ticket: number; command: Command }
  /** The account was logged out on this device. */
  | { is: "over" };

export interface Leader {
  snapshot(): Snapshot;
  command(command: Command): Promise<Outcome | null>;
  /** Resolves when nothing of it is under way any more. */
  stop(): Promise<void>;
}

export interface TabsHandler {
  /** This tab leads from now on. */
  lead(): Promise<Leader>;
  onSnapshot(snapshot: Snapshot): void;
  onEvents(events: unknown[]): void;
  onOver(): void;
}

interface Waiting {
  command: Command;
  resolve: (outcome: Outcome | null) => void;
  reject: (error: ApiError) => void;
}

export class Tabs {
  private readonly me = crypto.randomUUID();
  private readonly channel: BroadcastChannel | null;
  private isClosed = false;
  private leader: Leader | null = null;
  private resign: () => void = () => {};
  private readonly giveUp = new AbortController();
  private released: Promise<unknown> = Promise.resolve();
  private lastTicket = 0;
  private readonly waiting = new Map<number, Waiting>();

  constructor(
    /** Shared by the tabs; null: this tab is alone. */
    name: string | null,
    private readonly handler: TabsHandler,
  ) {
    const locks = globalThis.navigator?.locks;
    const canShare = locks !== undefined && typeof BroadcastChannel === "function";
    this.channel = canShare && name !== null ? new BroadcastChannel(name) : null;
    if (!this.channel || name === null || !locks) {
      void this.lead();
      return;
    }
    this.channel.onmessage = (message: MessageEvent<Note>) => this.onNote(message.data);
    this.post({ is: "who", from: this.me });
    this.released = locks.request(name, { signal: this.giveUp.signal }, () => this.lead()).catch(() => {});
  }

  get isLeader(): boolean {
    return this.leader !== null;
  }

  /** Holds the lock until {@link close}. */
  private async lead(): Promise<void> {
    const resigned = new Promise<void>((resolve) => (this.resign = resolve));
    this.leader = await this.handler.lead();
    this.post({ is: "here", snapshot: this.leader.snapshot(), to: null });
    for (const [ticket, { command }] of this.waiting) this.carryOut(ticket, command);
    await resigned;
    const { leader } = this;
    this.leader = null;
    await leader.stop();
  }

  command(command: Command): Promise<Outcome | null> {
    this.lastTicket += 1;
    const ticket = this.lastTicket;
    const answered = new Promise<Outcome | null>((resolve, reject) => this.waiting.set(ticket, { command, resolve, reject }));
    if (this.leader) this.carryOut(ticket, command);
    else this.post({ is: "command", from: this.me, ticket, command });
    return answered;
  }

  private carryOut(ticket: number, command: Command): void {
    this.leader!.command(command).then(
      (outcome) => this.settle(ticket, outcome, null),
      (error: unknown) => this.settle(ticket, null, asError(error)),
    );
  }

  private settle(ticket: number, outcome: Outcome | null, error: { code: string; detail: string } | null): void {
    const waiting = this.waiting.get(ticket);
    this.waiting.delete(ticket);
    if (error) waiting?.reject(new ApiError(error.code, 0, error.detail, 0));
    else waiting?.resolve(outcome);
  }

  /** What the leader's engine says, to all tabs, this one included. */
  events(events: unknown[]): void {
    this.post({ is: "events", events });
    this.handler.onEvents(events);
  }

  /** Everything may be another now: what the leader knows, to all other tabs. */
  renewed(): void {
    if (this.leader) this.post({ is: "here", snapshot: this.leader.snapshot(), to: null });
  }

  over(): void {
    this.post({ is: "over" });
  }

  private onNote(note: Note): void {
    const { leader } = this;
    if (note.is === "over") return this.handler.onOver();
    if (leader && note.is === "who") return this.post({ is: "here", snapshot: leader.snapshot(), to: note.from });
    if (leader && note.is === "command") {
      const answer = (outcome: Outcome | null, error: { code: string; detail: string } | null): void =>
        this.post({ is: "answer", to: note.from, ticket: note.ticket, outcome, error });
      leader.command(note.command).then((outcome) => answer(outcome, null), (error: unknown) => answer(null, asError(error)));
    }
    if (leader) return;
    if (note.is === "events") this.handler.onEvents(note.events);
    if (note.is === "answer" && note.to === this.me) this.settle(note.ticket, note.outcome, note.error);
    if (note.is === "here" && (note.to === null || note.to === this.me)) {
      this.handler.onSnapshot(note.snapshot);
      if (note.to !== null) return;
      // A new leader: the one before may not have heard of these.
      for (const [ticket, { command }] of this.waiting) this.post({ is: "command", from: this.me, ticket, command });
    }
  }

  private post(note: Note): void {
    // Closed: a log-out may come behind the node's own word of it.
    if (!this.isClosed) this.channel?.postMessage(note);
  }

  /** Leaves; another tab may lead. Resolves when nothing of this one is under way. */
  async close(): Promise<void> {
    this.resign();
    this.giveUp.abort();
    await this.released;
    this.isClosed = true;
    this.channel?.close();
  }
}

function asError(error: unknown): { code: string; detail: string } {
  return error instanceof ApiError ? { code: error.code, detail: error.message } : { code: "storage", detail: String(error) };
}
