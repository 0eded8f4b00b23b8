/** One channel on this device: what is known of it, its log, its marks, and what is under way for it. */

import { SEQ_MAX } from "../wire/limits.js";
import type { ChannelOpenedFrame } from "../wire/server-frame.js";
import type { ChannelKind, Id, LogEvent, MemberRole, SyncRow } from "../wire/values.js";
import { isNodeAlias } from "./alias.js";
import { Backoff, type Ms } from "./backoff.js";
import { type ChannelInfo, type Preview, isMessageKind, previewOf, readContent } from "./event.js";
import { Marks } from "./marks.js";
import { Log } from "./merge.js";
import type { ChannelRow } from "./persist.js";

const RETRY_BASE_MS = 200;
const RETRY_CAP_MS = 10_000;

export class Channel {
  title = "";
  peer: Id | null = null;
  role: MemberRole = "member";
  leftSeq: number | null = null;
  marks = new Marks();
  last: Preview | null = null;
  /** Who is in it was changed by this event, in this run of the program. */
  membersSeq = 0;
  informedSeq = 0;
  listed = 0;
  used = 0;
  /** The application shows it. With push mode *opened*, only such channels are loaded. */
  shown = false;
  /** When a hole in the log is to be fetched; null: there is none, or nothing to be had for it now. */
  gapDue: Ms | null = null;
  fetching = false;
  fetchBackoff = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  readDue: Ms = 0;
  /** The mark that the node was told on this connection; 0: none. A READ that moves nothing there is not answered. */
  readAsked = 0;
  readRequest = 0;
  readBackoff = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);

  private constructor(
    readonly id: Id,
    public kind: ChannelKind,
    public firstSeq: number,
    readonly log: Log,
  ) {}

  /** A channel that was not known: its log begins at the newest `window` events; older ones are loaded on demand. */
  static seen(id: Id, kind: ChannelKind, first: number, head: number, window: number): Channel {
    const base = Math.max(head + 1 - window, first, 1);
    return new Channel(id, kind, first, new Log(base, base - 1, head));
  }

  static load(row: ChannelRow): Channel {
    const channel = new Channel(row.channel, row.kind, row.firstSeq, new Log(row.base, row.have, row.head));
    channel.title = row.title;
    channel.peer = row.peer;
    channel.role = row.role;
    channel.leftSeq = row.leftSeq;
    channel.marks = Marks.load(row.marks);
    channel.informedSeq = row.informedSeq;
    channel.listed = row.listed;
    channel.used = row.used;
    channel.last = row.last ?? null;
    return channel;
  }

  row(): ChannelRow {
    return {
      channel: this.id,
      kind: this.kind,
      title: this.title,
      peer: this.peer,
      role: this.role,
      firstSeq: this.firstSeq,
      leftSeq: this.leftSeq,
      base: this.log.base,
      have: this.log.have,
      head: this.log.head,
      marks: this.marks.row(),
      informedSeq: this.informedSeq,
      listed: this.listed,
      used: this.used,
      last: this.last,
    };
  }

  info(): ChannelInfo {
    return {
      channel: this.id,
      kind: this.kind,
      title: this.title,
      peer: this.peer,
      role: this.role,
      left: this.leftSeq !== null,
      unread: this.marks.unread(),
      mentions: this.marks.mentions,
      firstSeq: this.firstSeq,
      headSeq: this.log.head,
      readSeq: this.marks.readSeq,
      heldFrom: this.log.base,
      heldTo: this.log.have,
      used: this.used,
      last: this.last,
    };
  }

  missing(): [from: number, to: number] | null {
    return this.log.missing(this.leftSeq ?? SEQ_MAX);
  }

  /** A hole may have to be fetched at `at`, or sooner if that was settled before. */
  gapAt(at: Ms): void {
    this.gapDue = this.missing() ? Math.min(this.gapDue ?? at, at) : null;
  }

  /** A row of SYNC_CHANGES: the channel as of its head. */
  onRow(row: SyncRow): void {
    this.marks.onHead(row.head);
    this.log.noteHead(Math.min(row.leftSeq ?? row.head.headSeq, row.head.headSeq));
    if (row.head.headSeq < this.informedSeq) return;
    this.informedSeq = row.head.headSeq;
    this.kind = row.kind;
    this.title = row.title;
    this.peer = row.peer;
    this.role = row.role;
    this.firstSeq = row.firstSeq;
    this.leftSeq = row.leftSeq;
  }

  /**
   * CHANNEL_OPENED: name and marks as of its head. Of membership it says something only when the node opened the channel by
   * itself, which it does for members.
   */
  onOpened(opened: ChannelOpenedFrame): void {
    const head = opened.head.headSeq;
    this.marks.onHead(opened.head);
    if (this.leftSeq !== null && isNodeAlias(opened.alias) && head > this.leftSeq) this.leftSeq = null;
    this.log.noteHead(this.leftSeq === null ? head : Math.min(head, this.leftSeq));
    if (head < this.informedSeq) return;
    this.kind = opened.kind;
    this.title = opened.title;
    this.peer = opened.peer;
    this.firstSeq = opened.firstSeq;
  }

  /** An event took its place. What it changes is known already when a row or CHANNEL_OPENED spoke of a later state. */
  onPlaced(event: LogEvent, me: Id | null): void {
    const isMessage = isMessageKind(event.kind);
    this.marks.onPlaced(event.seq, isMessage, event.author === me);
    this.sawEvent(event);
    if (isMessage || event.seq <= this.informedSeq) return;
    this.informedSeq = event.seq;
    const content = readContent(event);
    if (content.is === "created" || content.is === "renamed") this.title = content.title;
    if (!("members" in content)) return;
    const mine = content.members.find((it) => it.user === me);
    if (!mine) return;
    if (content.is === "member-removed" || content.is === "member-left") {
      this.leftSeq = event.seq;
    } else {
      this.leftSeq = null;
      this.role = mine.role;
    }
  }

  /** An event of the log is here; the newest that is a message is the channel's preview. */
  sawEvent(event: LogEvent): void {
    if (isMessageKind(event.kind) && event.seq > (this.last?.seq ?? 0)) this.last = previewOf(event);
  }

  /** The connection is gone, and what was under way with it. */
  onDisconnected(): void {
    this.gapDue = null;
    this.fetching = false;
    this.readAsked = 0;
    this.readRequest = 0;
    this.readDue = 0;
  }
}
