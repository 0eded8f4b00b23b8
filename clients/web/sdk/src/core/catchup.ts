/**
 * Finding what was missed, and fetching it.
 *
 * **SYNC** finds: the channels that changed since a token. One chain of pages runs at a time; each page's rows are remembered
 * (with their heads, so that a gap is noted even if it is filled later) in the same storage step as its token. It is asked
 * for whenever the node says so, or says an inbox position above the one that was covered.
 *
 * **HISTORY** fetches: a few gaps at a time, one page per channel, oldest first; and, when the person scrolls back, the page
 * below what this device holds, or any range that is only to be read.
 */

import { Code, adviceOf } from "../wire/codes.js";
import { HISTORY_ITEMS_MAX, SYNC_ROWS_MAX } from "../wire/limits.js";
import type { ErrorFrame, HistoryPageFrame, SyncChangesFrame } from "../wire/server-frame.js";
import type { Id, SyncRow } from "../wire/values.js";
import { Backoff, type Jitter, type Ms } from "./backoff.js";
import { Channel } from "./channel.js";
import type { Core } from "./core.js";
import { readMessage } from "./event.js";
import type { Outcome } from "./out.js";
import { dropUnplaced, noteGap, place, skipTo } from "./placing.js";
import type { AskedPage } from "./requests.js";
import { giveUpCursors } from "./resume.js";

const RETRY_BASE_MS = 200;
const RETRY_CAP_MS = 10_000;

/** How far this device follows the user's inbox, on one connection. */
export class SyncState {
  /** The highest inbox position that the node spoke of. */
  private seen = 0n;
  /** Changes up to here are remembered. */
  private covered = 0n;
  /** A chain of pages runs, and covers this much when it ends. */
  private chain: bigint | null = null;
  /** The node said that there is something, without a position. */
  private wanted = false;
  private notBefore: Ms = 0;
  private readonly backoff = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  /** Until when the node's own first page, and its answers to HELLO's cursors, are waited for. */
  firstDue: Ms | null = null;
  /** No gap is asked for before this: the last one was refused for going too fast. */
  gapsNotBefore: Ms = 0;

  /** The node sends the first page by itself. */
  onWelcome(position: bigint, firstDue: Ms): void {
    this.seen = position;
    this.chain = position;
    this.firstDue = firstDue;
  }

  onPosition(position: bigint): void {
    if (position > this.seen) this.seen = position;
  }

  want(): void {
    this.wanted = true;
  }

  /** The chain will not go on by itself; what it would have found is still to be found. */
  broken(): void {
    this.chain = null;
    this.wanted = true;
  }

  refused(now: Ms, retryAfterMs: Ms, jitter: Jitter): void {
    this.broken();
    this.notBefore = now + this.backoff.failed(retryAfterMs, jitter);
  }

  private isDue(): boolean {
    return this.chain === null && (this.wanted || this.seen > this.covered);
  }

  begins(now: Ms): boolean {
    if (!this.isDue() || now < this.notBefore) return false;
    this.wanted = false;
    this.chain = this.seen;
    return true;
  }

  goesOn(): void {
    this.chain ??= 0n;
  }

  ended(): void {
    if (this.chain !== null && this.chain > this.covered) this.covered = this.chain;
    this.chain = null;
    this.backoff.succeeded();
  }

  nextAt(): Ms {
    return Math.min(this.firstDue ?? Infinity, this.isDue() ? this.notBefore : Infinity);
  }
}

export function pumpSync(core: Core, now: Ms): void {
  const { sync } = core;
  if (sync.firstDue !== null && now >= sync.firstDue) {
    sync.firstDue = null;
    giveUpCursors(core, now);
    if (!core.requests.has("sync")) sync.broken();
  }
  if (sync.begins(now)) askSync(core);
}

export const nextSyncAt = (core: Core): Ms => core.sync.nextAt();

function askSync(core: Core): void {
  core.put({ is: "sync", request: core.requests.ask({ for: "sync" }), token: core.meta.syncToken, rowsMax: SYNC_ROWS_MAX });
}

export function onSyncChanges(core: Core, now: Ms, changes: SyncChangesFrame): void {
  const asked = core.requests.answered(changes.request);
  if (asked ? asked.for !== "sync" : changes.request !== 0) return core.distrust(now);
  const { meta, sync } = core;
  if (changes.request === 0 && sync.firstDue !== null && core.cursors.every((id) => !core.aliases.isOpening(id))) sync.firstDue = null;
  if (changes.reset) meta.listing = { round: meta.listing.round + 1, phase: "pages" };
  if (changes.reset) core.firstSights = core.config.firstSightChannels;
  for (const row of changes.rows) onRow(core, now, row);
  if (changes.token.length > 0) meta.syncToken = changes.token;
  if (changes.more) {
    sync.goesOn();
    askSync(core);
  } else {
    sync.ended();
    onListingEnd(core);
  }
  core.saveMeta();
}

function onRow(core: Core, now: Ms, row: SyncRow): void {
  const id = row.head.channel;
  let channel = core.known.get(id);
  if (!channel) {
    if (row.leftSeq !== null) return; // never seen here, and not ours any more
    channel = firstSight(core, row);
    core.known.set(id, channel);
  }
  channel.onRow(row);
  channel.listed = core.meta.listing.round;
  core.changed.add(id);
  if (row.leftSeq === null && row.head.headSeq >= row.firstSeq) skipTo(core, id, row.firstSeq);
  place(core, now, id);
  if (!core.aliases.isOpening(id)) noteGap(core, now, id);
}

function firstSight(core: Core, row: SyncRow): Channel {
  const isListing = core.meta.listing.phase === "pages" || core.meta.syncToken.length === 0;
  let window = core.config.firstSightEvents;
  if (isListing && core.firstSights === 0) window = 0;
  else if (isListing) core.firstSights -= 1;
  const channel = Channel.seen(row.head.channel, row.kind, row.firstSeq, row.head.headSeq, window);
  channel.shown = core.shown.has(channel.id);
  return channel;
}

/** After the last page of a chain: a listing is checked by one more, then what it did not mention is gone. */
function onListingEnd(core: Core): void {
  const { listing } = core.meta;
  if (listing.phase === "pages") {
    listing.phase = "check";
    core.sync.want();
  } else if (listing.phase === "check") {
    listing.phase = "none";
    for (const channel of [...core.known.values()]) {
      if (channel.listed !== listing.round && !core.requests.has("open", channel.id)) removeChannel(core, channel.id);
    }
  }
}

function removeChannel(core: Core, id: Id): void {
  core.known.delete(id);
  core.changed.delete(id);
  core.gaps.delete(id);
  core.marksDue.delete(id);
  dropUnplaced(core, id);
  core.out.persist.push({ remove: "channel", channel: id });
  core.out.events.push({ is: "channel-removed", channel: id });
}

export function onSyncRefused(core: Core, now: Ms, error: ErrorFrame): void {
  core.sync.refused(now, error.retryAfterMs, core.jitter);
}

export function nextGapAt(core: Core): Ms {
  if (!core.requests.hasGapRoom()) return Infinity;
  let next = Infinity;
  for (const id of core.gaps) {
    const channel = core.known.get(id);
    if (channel && !channel.fetching && channel.gapDue !== null) next = Math.min(next, channel.gapDue);
  }
  return Math.max(next, core.sync.gapsNotBefore);
}

export function pumpGaps(core: Core, now: Ms): void {
  if (now < core.sync.gapsNotBefore) return;
  const due = [...core.gaps].filter((id) => {
    const channel = core.known.get(id);
    return channel && !channel.fetching && channel.gapDue !== null && channel.gapDue <= now;
  });
  // What the person looks at comes first.
  due.sort((a, b) => Number(core.shown.has(b)) - Number(core.shown.has(a)));
  for (const id of due) {
    if (!core.requests.hasGapRoom()) return;
    fetchGap(core, id);
  }
}

function fetchGap(core: Core, id: Id): void {
  const channel = core.known.get(id);
  if (!channel) return;
  channel.gapDue = null;
  const missing = channel.missing();
  if (!missing) {
    core.gaps.delete(id);
    return;
  }
  channel.fetching = true;
  const request = core.requests.ask({ for: "gap", channel: id });
  core.put({ is: "history", request, channel: id, from: missing[0], to: missing[1], itemsMax: HISTORY_ITEMS_MAX, newest: false });
}

export function onHistoryPage(core: Core, now: Ms, page: HistoryPageFrame): void {
  const asked = core.requests.answered(page.request);
  if (asked?.for === "gap" && asked.channel === page.channel) onGapPage(core, now, page);
  else if (asked?.for === "older" && asked.channel === page.channel) onOlderPage(core, asked.ticket, asked.to, page);
  else if (asked?.for === "range" && asked.channel === page.channel) {
    const messages = page.events.map((event) => readMessage(page.channel, event, null));
    core.out.answers.push({ ticket: asked.ticket, outcome: { is: "page", messages } });
  } else core.distrust(now);
}

function onGapPage(core: Core, now: Ms, page: HistoryPageFrame): void {
  const id = page.channel;
  const channel = core.known.get(id);
  if (!channel) return;
  channel.fetching = false;
  channel.fetchBackoff.succeeded();
  core.requests.onGapPage();
  const before = channel.log.have;
  channel.log.noteHead(Math.min(page.headSeq, channel.leftSeq ?? Infinity));
  // An empty range with `firstSeq` above it: nothing of the hole is left for us.
  if (page.headSeq >= page.firstSeq) skipTo(core, id, page.firstSeq);
  for (const event of page.events) channel.log.arrive({ event, key: null, attempts: core.outbox.attempts });
  const moved = channel.log.have !== before || page.events.length > 0;
  place(core, now, id);
  if (moved) return noteGap(core, now, id);
  // The node has nothing for this hole now; the next hint asks again.
  channel.gapDue = null;
  core.gaps.delete(id);
}

export function onGapRefused(core: Core, now: Ms, id: Id, error: ErrorFrame): void {
  const channel = core.known.get(id);
  if (!channel) return;
  channel.fetching = false;
  if (adviceOf(error.code) !== "retry-here") {
    core.gaps.delete(id);
    return;
  }
  const delay = channel.fetchBackoff.failed(error.retryAfterMs, core.jitter);
  core.requests.onGapRefused();
  if (error.code === Code.rateLimited) core.sync.gapsNotBefore = now + delay;
  noteGap(core, now + delay, id);
}

export function onLoadOlder(core: Core, ticket: number, id: Id, items: number): void {
  const answer = (outcome: Outcome): void => void core.out.answers.push({ ticket, outcome });
  const channel = core.known.get(id);
  if (!channel) return answer({ is: "at-start" });
  const from = Math.max(channel.firstSeq, 1);
  const to = channel.log.base - 1;
  if (to < from) return answer({ is: "at-start" });
  askPage(core, { for: "older", channel: id, ticket, to }, from, to, items);
}

/** Events of a range, which need not touch what this device holds. */
export function onLoadRange(core: Core, ticket: number, channel: Id, from: number, to: number, items: number): void {
  if (to < from) core.out.answers.push({ ticket, outcome: { is: "page", messages: [] } });
  else askPage(core, { for: "range", channel, ticket }, from, to, items);
}

function askPage(core: Core, asked: AskedPage, from: number, to: number, items: number): void {
  const { ticket, channel } = asked;
  if (!core.link.isOnline() || !core.requests.hasPageRoom()) return void core.out.answers.push({ ticket, outcome: { is: "offline" } });
  const itemsMax = Math.min(Math.max(items, 1), HISTORY_ITEMS_MAX);
  core.put({ is: "history", request: core.requests.ask(asked), channel, from, to, itemsMax, newest: asked.for === "older" });
}

function onOlderPage(core: Core, ticket: number, to: number, page: HistoryPageFrame): void {
  const id = page.channel;
  const answer = (outcome: Outcome): void => void core.out.answers.push({ ticket, outcome });
  const channel = core.known.get(id);
  if (!channel) return answer({ is: "at-start" });
  if (page.events.length === 0) {
    channel.firstSeq = Math.max(channel.firstSeq, page.firstSeq);
    core.changed.add(id);
    return answer({ is: "at-start" });
  }
  // The run may have started again elsewhere since this was asked.
  if (page.coveredTo === to && channel.log.base === to + 1) {
    channel.log.extendDown(page.coveredFrom);
    channel.firstSeq = Math.max(channel.firstSeq, page.firstSeq);
    core.changed.add(id);
    for (const event of page.events) {
      channel.sawEvent(event);
      core.out.persist.push({ put: "message", row: { channel: id, event, key: null } });
    }
  }
  answer({ is: "loaded" });
}

export function onPageRefused(core: Core, ticket: number, { code }: ErrorFrame): void {
  core.out.answers.push({ ticket, outcome: { is: "refused", code } });
}
