/** Read marks on their way to the node: kept until its word has reached them, one question per channel at a time. */

import { adviceOf } from "../wire/codes.js";
import type { ErrorFrame } from "../wire/server-frame.js";
import type { Id } from "../wire/values.js";
import type { Ms } from "./backoff.js";
import type { Channel } from "./channel.js";
import type { Core } from "./core.js";

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
