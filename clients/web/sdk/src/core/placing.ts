/**
 * Events into the order of their channel, and out to storage and application.
 *
 * Whatever an event came by, it goes through `place`: the log says what is next, the own-author hold says what must wait, and
 * what leaves is stored and given out in the same breath.
 *
 * An own message that was acknowledged ahead of its place keeps its row in the outbox, with its seq, until it is placed; the row
 * goes in the transaction in which the event comes. So whatever ends when, a message that was shown as stored is in one of
 * the two.
 */

import { TABLE, type Ack, type Id } from "../wire/values.js";
import type { Ms } from "./backoff.js";
import type { Core } from "./core.js";
import type { Channel } from "./channel.js";
import { type Message, readMessage } from "./event.js";
import type { OutboxItem, Settled } from "./outbox.js";
import type { MemberRow } from "./persist.js";

/**
 * How long a hole may stay before it is fetched, when what fills it is probably on its way: an ack may overtake the delivery
 * below it, and a cursor's gap is streamed.
 */
const GAP_GRACE_MS = 400;

/** Where an own message will stand. */
const placeOf = (channel: Id, seq: number): string => `${channel}/${seq}`;

/** Gives out what is next in a channel, as far as there is something. */
export function place(core: Core, now: Ms, id: Id): void {
  const channel = core.known.get(id);
  if (!channel) return;
  const me = core.meta.user;
  const ready = channel.log.takeReady(
    ({ event, key, attempts }) => event.author === me && key === null && !core.unplaced.has(placeOf(id, event.seq)) && core.outbox.holds(id, attempts),
  );
  if (ready.length > 0) {
    core.used += 1;
    channel.used = core.used;
    channel.gapDue = null;
    core.changed.add(id);
  }
  for (const { event, key: known } of ready) {
    const own = core.unplaced.get(placeOf(id, event.seq));
    if (own) {
      core.unplaced.delete(placeOf(id, event.seq));
      core.out.persist.push({ remove: "outbox", id: own.id });
      core.outboxChanged.add(id);
    }
    const key = known ?? own?.key ?? null;
    channel.onPlaced(event, me);
    const message = readMessage(id, event, key);
    core.out.events.push({ is: "message", message });
    core.out.persist.push({ put: "message", row: { channel: id, event, key } });
    moveMembers(core, channel, message);
  }
  if (!channel.shown && channel.log.held() > 2 * core.config.heldEventsMax) trim(core, id);
  noteGap(core, now + GAP_GRACE_MS, id);
}

/** Who is in a channel, moved on over an event. What its first event says is all; what a list held already changes nothing. */
function moveMembers(core: Core, channel: Channel, { seq, content }: Message): void {
  if (!("members" in content)) return;
  const { is, members } = content;
  channel.membersSeq = seq;
  if (is === "created" || is === "members-added") {
    core.out.persist.push({
      put: "members", channel: channel.id, isAll: is === "created", members: members.map(({ user, role }) => ({ user, role, joinedSeq: seq })),
    });
  } else core.out.persist.push({ remove: "members", channel: channel.id, users: members.map(({ user }) => user) });
}

/** The node's list, as of an event that was placed before it was asked for. One that a change behind that may or may not be in is not kept. */
export function onKeepMembers(core: Core, id: Id, asOf: number, members: MemberRow[]): void {
  const channel = core.known.get(id);
  if (channel && channel.membersSeq <= asOf) core.out.persist.push({ put: "members", channel: id, isAll: true, members });
}

/** Lets go of all but the newest events of a channel that nobody looks at; the node has them. */
export function trim(core: Core, id: Id): void {
  const below = core.known.get(id)?.log.trim(core.config.heldEventsMax) ?? null;
  if (below === null) return;
  core.changed.add(id);
  core.out.persist.push({ remove: "older-messages", channel: id, below });
}

/** A hole that the channel may have is to be fetched at `at`. */
export function noteGap(core: Core, at: Ms, id: Id): void {
  const channel = core.known.get(id);
  if (!channel) return;
  if (channel.shown || core.config.push === "all") channel.gapAt(at);
  if (channel.gapDue !== null) core.gaps.add(id);
  else core.gaps.delete(id);
}

/** What lies below `first` is not for us: the log goes on there. */
export function skipTo(core: Core, id: Id, first: number): void {
  const channel = core.known.get(id);
  const skipped = channel?.log.skipTo(first);
  if (!channel || !skipped) return;
  channel.marks.onSkipped(skipped[1]);
  if (channel.marks.uncounted) core.uncounted.add(id);
  dropUnplaced(core, id, first);
  core.changed.add(id);
  core.out.persist.push({ remove: "messages", channel: id });
  core.out.events.push({ is: "skipped", channel: id, from: skipped[0], to: skipped[1] });
}

/** A send has come to its end. */
export function onSettled(core: Core, now: Ms, settled: Settled): void {
  const { item } = settled;
  if ("ack" in settled) return onStored(core, now, item, settled.ack);
  core.out.persist.push({ put: "outbox", item: core.outbox.keepRefused(item, settled.code) });
  core.out.events.push({ is: "send-refused", channel: item.channel, key: item.key, code: settled.code });
  core.outboxChanged.add(item.channel);
  place(core, now, item.channel);
}

/** The session that sent a message gets its ack in place of the event: we know the content, and put it there. */
function onStored(core: Core, now: Ms, item: OutboxItem, { seq, timeMs }: Ack): void {
  const { channel: id, key } = item;
  core.out.events.push({ is: "send-stored", channel: id, key, seq, timeMs });
  core.outboxChanged.add(id);
  const kept = { ...item, stored: { seq, timeMs } };
  if (!awaitPlace(core, kept)) return sendGone(core, kept);
  core.changed.add(id);
  place(core, now, id);
  // Not its turn yet.
  if (core.unplaced.get(placeOf(id, seq)) === kept) core.out.persist.push({ put: "outbox", item: kept });
}

/** Puts a message that the node has into its channel's log. False: its place is passed, or not to be had here. */
export function awaitPlace(core: Core, item: OutboxItem): boolean {
  const { channel: id, key, kind, flags, tail, stored } = item;
  const channel = core.known.get(id);
  const author = core.meta.user;
  if (!stored || !channel || author === null || stored.seq <= channel.log.have) return false;
  core.unplaced.set(placeOf(id, stored.seq), item);
  channel.log.arrive({ event: { author, ...stored, kind, flags: flags & TABLE, tail }, key, attempts: 0 });
  return true;
}

/** The places of own messages below `below` will not be reached. */
export function dropUnplaced(core: Core, id: Id, below = Infinity): void {
  for (const [place, item] of core.unplaced) {
    if (item.channel !== id || item.stored!.seq >= below) continue;
    core.unplaced.delete(place);
    sendGone(core, item);
  }
}

/** The outbox has it no more, and no event takes its place. */
export function sendGone(core: Core, { id, channel, key }: OutboxItem): void {
  core.out.persist.push({ remove: "outbox", id });
  core.out.events.push({ is: "send-gone", channel, key });
  core.outboxChanged.add(channel);
}
