/**
 * Read marks on their way to the node: kept until its word has reached them, one question per channel at a time; and asking how
 * many messages there are where some were passed over unseen.
 */

import { adviceOf } from "../wire/codes.js";
import type { ChannelOpenedFrame, ErrorFrame } from "../wire/server-frame.js";
import type { Id } from "../wire/values.js";
import type { Ms } from "./backoff.js";
import type { Channel } from "./channel.js";
import type { Core } from "./core.js";
import { openIfNeeded } from "./sending.js";

/** Marks of a channel that follow each other faster than this are told as one. */
const READ_PAUSE_MS = 500;

export function onMarkRead(core: Core, id: Id, seq: number): void {
  const channel = core.known.get(id);
  if (!channel?.marks.want(Math.min(seq, channel.log.head))) return;
  core.marksDue.add(id);
  core.changed.add(id);
}

export function pumpMarks(core: Core, now: Ms): void {
  for (const id of core.marksDue) {
    const channel = core.known.get(id);
    if (!channel || channel.marks.wanted === 0) {
      core.marksDue.delete(id);
      core.requests.answered(channel?.readRequest ?? 0);
    } else if (isDue(channel) && channel.readDue <= now) {
      // The one before will not be answered any more: success says CHANNEL_HEAD, not the request.
      core.requests.answered(channel.readRequest);
      channel.readRequest = core.requests.ask({ for: "read", channel: id });
      channel.readAsked = channel.marks.wanted;
      channel.readDue = now + READ_PAUSE_MS;
      core.put({ is: "read", request: channel.readRequest, channel: id, seq: channel.marks.wanted });
    }
  }
}

const isDue = (channel: Channel): boolean => channel.marks.wanted > channel.readAsked;

export function nextMarkAt(core: Core): Ms {
  let next = Infinity;
  for (const id of core.marksDue) {
    const channel = core.known.get(id);
    if (channel && isDue(channel)) next = Math.min(next, channel.readDue);
  }
  return next;
}

/**
 * Where messages were passed over unseen, the node is asked how many people's messages there are: opening a channel that is open
 * answers with its head. Asked again until the answer is as high as what was placed meanwhile.
 */
export function pumpUncounted(core: Core): void {
  for (const id of core.uncounted) {
    core.uncounted.delete(id);
    if (!core.known.get(id)?.marks.uncounted || core.requests.has("head", id)) continue;
    if (core.aliases.open(id) === null) {
      openIfNeeded(core, id);
      continue;
    }
    const alias = core.aliases.spare();
    if (alias === null) continue;
    const request = core.requests.ask({ for: "head", channel: id });
    core.put({ is: "open-channel", request, cursor: { channel: id, generation: 0, seq: 0, alias } });
  }
}

/** The answer: the same alias, and the head. */
export function onCounted(core: Core, { head, alias }: ChannelOpenedFrame): void {
  const id = head.channel;
  core.aliases.opened(id, alias);
  const channel = core.known.get(id);
  if (!channel) return;
  channel.marks.onHead(head);
  channel.log.noteHead(head.headSeq);
  core.changed.add(id);
  if (channel.marks.uncounted) core.uncounted.add(id);
}

export function onReadRefused(core: Core, now: Ms, id: Id, error: ErrorFrame): void {
  const channel = core.known.get(id);
  if (!channel) return;
  channel.readAsked = 0;
  if (adviceOf(error.code) === "retry-here") {
    channel.readDue = now + channel.readBackoff.failed(error.retryAfterMs, core.jitter);
  } else {
    channel.marks.wanted = 0;
    core.changed.add(id);
  }
}
