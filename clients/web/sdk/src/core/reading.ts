/** Read marks on their way to the node: kept until its word has reached them, one question per channel at a time. */

import { adviceOf } from "../wire/codes.js";
import type { ErrorFrame } from "../wire/server-frame.js";
import type { Id } from "../wire/values.js";
import type { Ms } from "./backoff.js";
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
    } else if (!channel.readAsked && channel.readDue <= now) {
      channel.readAsked = true;
      core.put({ is: "read", request: core.requests.ask({ for: "read", channel: id }), channel: id, seq: channel.marks.wanted });
    }
  }
}

export function nextMarkAt(core: Core): Ms {
  let next = Infinity;
  for (const id of core.marksDue) {
    const channel = core.known.get(id);
    if (channel && !channel.readAsked) next = Math.min(next, channel.readDue);
  }
  return next;
}

export function onReadRefused(core: Core, now: Ms, id: Id, error: ErrorFrame): void {
  const channel = core.known.get(id);
  if (!channel) return;
  channel.readAsked = false;
  if (adviceOf(error.code) === "retry-here") {
    channel.readDue = now + channel.readBackoff.failed(error.retryAfterMs, core.jitter);
  } else {
    channel.marks.wanted = 0;
    core.changed.add(id);
  }
}
