/** What was asked on this connection and is not answered yet. Request ids are never reused on a connection. */

import type { Id } from "../wire/values.js";

/** Pages asked for at a time, of the eight that a connection may have open: some stay free for scrolling back and SYNC. */
const GAP_PAGES_MAX = 5;
const PAGES_MAX = 7;

/** A page that somebody waits for. */
export type AskedPage =
  | { for: "older"; channel: Id; ticket: number; to: number }
  | { for: "range"; channel: Id; ticket: number };

export type Asked =
  | AskedPage
  | { for: "send"; channel: Id }
  | { for: "open"; channel: Id }
  /** How many people's messages there are, of a channel that is open. */
  | { for: "head"; channel: Id }
  | { for: "gap"; channel: Id }
  | { for: "sync" }
  | { for: "read"; channel: Id }
  | { for: "auth" };

export class Requests {
  private last = 0;
  private readonly open = new Map<number, Asked>();
  private gapPages = 0;
  /** One after a refusal, one more with every page: refusals that go on would count as a flood. */
  private gapPagesMax = GAP_PAGES_MAX;
  private pages = 0;

  ask(asked: Asked): number {
    this.last = this.last === 0xffff_ffff ? 1 : this.last + 1;
    this.open.set(this.last, asked);
    this.count(asked, 1);
    return this.last;
  }

  answered(request: number): Asked | undefined {
    const asked = this.open.get(request);
    if (asked) {
      this.open.delete(request);
      this.count(asked, -1);
    }
    return asked;
  }

  private count(asked: Asked, by: 1 | -1): void {
    if (asked.for === "gap") this.gapPages += by;
    if (asked.for === "gap" || "ticket" in asked) this.pages += by;
  }

  onGapPage(): void {
    this.gapPagesMax = Math.min(this.gapPagesMax + 1, GAP_PAGES_MAX);
  }

  onGapRefused(): void {
    this.gapPagesMax = 1;
  }

  hasGapRoom(): boolean {
    return this.gapPages < this.gapPagesMax && this.hasPageRoom();
  }

  hasPageRoom(): boolean {
    return this.pages < PAGES_MAX;
  }

  /** Whether this was asked, of the channel if one is given. */
  has(what: Asked["for"], channel?: Id): boolean {
    return this.some((asked) => asked.for === what && (channel === undefined || ("channel" in asked && asked.channel === channel)));
  }

  /** Whether anything was asked that is always answered. A READ is not. */
  wait(): boolean {
    return this.some((asked) => asked.for !== "read");
  }

  private some(is: (asked: Asked) => boolean): boolean {
    for (const asked of this.open.values()) if (is(asked)) return true;
    return false;
  }

  /** What will not be answered, because the connection is gone. */
  unanswered(): Asked[] {
    return [...this.open.values()];
  }
}
