/**
 * Own messages on their way out: frames from the outbox, and what the node says to them; and the aliases that they need.
 *
 * A send needs its channel's alias to be open; the outbox says what may go. See `outbox.ts` for the rules of order.
 */

import { adviceOf } from "../wire/codes.js";
import { GAP_STREAMED_MAX } from "../wire/limits.js";
import type { ChannelOpenedFrame, ErrorFrame } from "../wire/server-frame.js";
import type { Ack, ChannelHead, Id, MessageKey } from "../wire/values.js";
import { isNodeAlias } from "./alias.js";
import type { Ms } from "./backoff.js";
import { Channel } from "./channel.js";
import { dropConnection, onLastWord } from "./connect.js";
import type { Core } from "./core.js";
import type { OutboxItem } from "./outbox.js";
import { dropUnplaced, noteGap, onSettled, place, sendGone, skipTo } from "./placing.js";
import { onCounted } from "./reading.js";

/** The application's message: stored before its first byte leaves. */
export function onSend(core: Core, item: OutboxItem): void {
  core.outbox.push(keep(core, item));
}

/** Where it stands behind what is here now, it stays if it should be refused. */
function keep(core: Core, message: OutboxItem): OutboxItem {
  const channel = touch(core, message.channel);
  const item = { ...message, ...(channel && { after: channel.log.have }) };
  core.out.persist.push({ put: "outbox", item });
  core.outboxChanged.add(item.channel);
  return item;
}

/** A message that was refused goes once more, as the newest of its channel; under `newKey` if its own may not be used again. */
export function onRetry(core: Core, key: MessageKey, newKey: MessageKey, createdMs: number): void {
  if (!core.outbox.wasRefused(key)) return;
  const item = core.outbox.cancel(key)!;
  sendGone(core, item);
  const { refused: _, after: _before, ...message } = item;
  const again = { ...message, id: core.outbox.nextId(), key: newKey, createdMs };
  if (newKey !== key) return onSend(core, again);
  core.outbox.pushAgain(keep(core, again));
}

/** The person has seen that this message was refused, or takes it back before it left: it is forgotten. */
export function onDismiss(core: Core, key: MessageKey): void {
  const item = core.outbox.cancel(key);
  if (item) sendGone(core, item);
}

function touch(core: Core, id: Id): Channel | undefined {
  core.used += 1;
  const channel = core.known.get(id);
  if (channel) channel.used = core.used;
  return channel;
}

export function pumpSends(core: Core, now: Ms): void {
  if (!core.link.takesSends()) return;
  for (const channel of core.outbox.ready(now)) {
    const alias = core.aliases.open(channel);
    if (alias === null) openIfNeeded(core, channel);
    else sendNext(core, channel, alias);
  }
}

export function nextSendAt(core: Core): Ms {
  return core.link.takesSends() ? core.outbox.nextAt() : Infinity;
}

function sendNext(core: Core, channel: Id, alias: number): void {
  const frame = core.outbox.nextFrame(channel);
  if (!frame) return;
  core.outboxChanged.add(channel);
  const request = core.requests.ask({ for: "send", channel });
  const sends = frame.map(({ item: { key, kind, tail }, flags }) => ({ key, alias, kind, flags, tail }));
  if (sends.length === 1) core.put({ is: "send", request, send: sends[0]! });
  else core.put({ is: "send-many", request, sends });
}

export function onSendAck(core: Core, now: Ms, request: number, acks: Ack[]): void {
  const asked = core.requests.answered(request);
  const settled = asked?.for === "send" ? core.outbox.onAck(asked.channel, acks) : null;
  if (!settled) return core.distrust(now);
  for (const it of settled) onSettled(core, now, it);
}

export function onSendRefused(core: Core, now: Ms, channel: Id, error: ErrorFrame): void {
  core.outboxChanged.add(channel);
  const refusal = core.outbox.onRefused(channel, error, now, core.jitter);
  if (!refusal) return core.distrust(now);
  switch (refusal.is) {
    case "waits":
      core.out.events.push({ is: "sends-delayed", channel, code: error.code, retryInMs: refusal.until - now });
      break;
    case "dropped":
      onSettled(core, now, refusal.settled);
      break;
    case "reopen":
      core.aliases.forget(channel);
      core.outbox.delay(channel, 0, now, core.jitter);
      break;
    case "reconnect":
      // The close that follows says what to do.
      onLastWord(core, error);
  }
  // A certain refusal may have freed an event that was held.
  place(core, now, channel);
}

/** Asks for the channel's alias, unless that is under way. */
export function openIfNeeded(core: Core, channel: Id): void {
  if (!core.link.isOnline() || core.aliases.open(channel) !== null || core.aliases.isOpening(channel)) return;
  const alias = core.aliases.choose(channel);
  if (alias === null) return;
  const held = core.known.get(channel)?.log.have ?? null;
  core.put({
    is: "open-channel",
    request: core.requests.ask({ for: "open", channel }),
    cursor: { channel, generation: held === null ? 0 : core.meta.generation, seq: held ?? 0, alias },
  });
}

/** CHANNEL_OPENED: the answer to HELLO or OPEN_CHANNEL, or by itself before the first event under an alias of the node's. */
export function onChannelOpened(core: Core, now: Ms, opened: ChannelOpenedFrame): void {
  const id = opened.head.channel;
  const asked = core.requests.answered(opened.request);
  if (asked?.for === "head" && asked.channel === id) return onCounted(core, opened);
  const fits = asked ? asked.for === "open" && asked.channel === id : opened.request === 0;
  if (!fits) return core.distrust(now);
  core.aliases.opened(id, opened.alias);
  if (opened.resync) resetChannel(core, id);
  const head = opened.head.headSeq;
  const held = core.known.get(id)?.log.have ?? 0;
  const isStreamed = held > 0 && head - held <= GAP_STREAMED_MAX;
  let channel = core.known.get(id);
  if (!channel) {
    channel = Channel.seen(id, opened.kind, opened.firstSeq, head, core.config.firstSightEvents);
    core.known.set(id, channel);
  }
  channel.onOpened(opened);
  channel.shown ||= core.shown.has(id);
  channel.listed = core.meta.listing.round;
  core.changed.add(id);
  if (head >= opened.firstSeq) skipTo(core, id, opened.firstSeq);
  place(core, now, id);
  if (channel.marks.uncounted) core.uncounted.add(id);
  // A short gap behind a cursor is streamed; any other is ours to fetch. Events that follow by themselves are near.
  if (!isNodeAlias(opened.alias) && !isStreamed) noteGap(core, now, id);
}

/** What is known of the channel's log is void. */
function resetChannel(core: Core, id: Id): void {
  if (!core.known.delete(id)) return;
  dropUnplaced(core, id);
  core.gaps.delete(id);
  core.out.persist.push({ remove: "messages", channel: id });
  core.out.events.push({ is: "channel-reset", channel: id });
}

export function onOpenRefused(core: Core, now: Ms, channel: Id, error: ErrorFrame): void {
  core.aliases.forget(channel);
  noteGap(core, now, channel);
  if (adviceOf(error.code) === "retry-here") return core.outbox.delay(channel, error.retryAfterMs, now, core.jitter);
  const { settled, someAreUnknown } = core.outbox.onOpenRefused(channel, error.code);
  for (const it of settled) onSettled(core, now, it);
  if (someAreUnknown) dropConnection(core, now, error.code);
}

/** CHANNEL_HEAD: events that are not pushed, or a mark that moved. */
export function onChannelHead(core: Core, now: Ms, head: ChannelHead): void {
  const channel = core.known.get(head.channel);
  if (!channel) return core.sync.want();
  channel.marks.onHead(head);
  channel.log.noteHead(head.headSeq);
  channel.listed = core.meta.listing.round;
  core.changed.add(head.channel);
  noteGap(core, now, head.channel);
}

/** The application shows a channel. */
export function onOpen(core: Core, now: Ms, id: Id): void {
  core.shown.add(id);
  const channel = touch(core, id);
  if (channel) {
    channel.shown = true;
    core.changed.add(id);
  }
  openIfNeeded(core, id);
  noteGap(core, now, id);
}

export function onClose(core: Core, id: Id): void {
  core.shown.delete(id);
  const channel = core.known.get(id);
  if (channel) channel.shown = false;
  // With push mode *all* the alias is worth keeping: the node would open another one for the next event.
  if (core.config.push === "all") return;
  const alias = core.aliases.forget(id);
  if (alias !== null) core.put({ is: "close-channel", alias });
}
