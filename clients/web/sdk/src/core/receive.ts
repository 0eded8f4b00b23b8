/**
 * Bytes from the node, frame by frame, to the concept that each belongs to.
 *
 * Nothing here trusts the other side: a frame that cannot be read, that comes out of turn or answers nothing costs the
 * connection, never more.
 */

import { BODY_OMITTED, type LogEvent } from "../wire/values.js";
import { type ErrorFrame, type ServerFrame, serverFrames } from "../wire/server-frame.js";
import type { Ms } from "./backoff.js";
import {
  onGapRefused, onHistoryPage, onPageRefused, onSyncChanges, onSyncRefused,
} from "./catchup.js";
import { onAuthExpiring, onGoaway, onLastWord } from "./connect.js";
import type { Core } from "./core.js";
import { noteGap, place } from "./placing.js";
import { onReadRefused } from "./reading.js";
import { onCursorRefused, onWelcome } from "./resume.js";
import { onChannelHead, onChannelOpened, onOpenRefused, onSendAck, onSendRefused } from "./sending.js";

const TYPE_HELLO = 0x01;
const TYPE_OPEN_CHANNEL = 0x0c;
const TYPE_SYNC = 0x0f;

export function onReceived(core: Core, now: Ms, connection: number, bytes: Uint8Array): void {
  if (!core.link.isCurrent(connection)) return;
  core.link.heartbeat.heard(now);
  const frames = serverFrames(bytes);
  while (core.link.isCurrent(connection)) {
    let next: IteratorResult<{ frame: ServerFrame; bytes: number }>;
    try {
      next = frames.next();
    } catch {
      // FrameError, and whatever else reading strange bytes may throw.
      return core.distrust(now);
    }
    if (next.done) return;
    onFrame(core, now, next.value.frame, next.value.bytes);
  }
}

function onFrame(core: Core, now: Ms, frame: ServerFrame, frameBytes: number): void {
  if (!core.link.isOnline()) return onEarlyFrame(core, now, frame);
  switch (frame.is) {
    case "welcome":
      return core.distrust(now);
    case "pushed":
      return onPushed(core, now, frame.alias, frame.event, frameBytes);
    case "send-ack":
      return onSendAck(core, now, frame.request, frame.acks);
    case "channel-head":
      return onChannelHead(core, now, frame.head);
    case "sync-now":
      return core.sync.want();
    case "channel-opened":
      return onChannelOpened(core, now, frame);
    case "sync-changes":
      return onSyncChanges(core, now, frame);
    case "history-page":
      return onHistoryPage(core, now, frame);
    case "error":
      return onError(core, now, frame);
    case "pong":
      core.link.heartbeat.answered(frame.nonce);
      return core.sync.onPosition(frame.inboxPosition);
    case "goaway":
      return onGoaway(core, now, frame.delayMinMs, frame.delayMaxMs);
    case "auth-expiring":
      return onAuthExpiring(core);
    case "auth-refreshed":
      core.requests.answered(frame.request);
  }
}

/** Before WELCOME only WELCOME, a refusal or a farewell makes sense. */
function onEarlyFrame(core: Core, now: Ms, frame: ServerFrame): void {
  const phase = core.link.phase;
  if (frame.is === "welcome" && phase.is === "handshaking" && phase.helloSent) onWelcome(core, now, frame);
  else if (frame.is === "error") onLastWord(core, frame);
  else if (frame.is !== "goaway" && frame.is !== "skipped") core.distrust(now);
}

function onPushed(core: Core, now: Ms, alias: number, event: LogEvent, frameBytes: number): void {
  const grant = core.link.credit.pushed(frameBytes);
  if (grant > 0) core.put({ is: "credit", bytes: grant });
  const id = core.aliases.channel(alias);
  if (id === undefined) return core.distrust(now);
  const channel = core.known.get(id);
  // Forgotten since; SYNC tells whether it is ours.
  if (!channel) return core.sync.want();
  channel.listed = core.meta.listing.round;
  if (event.flags & BODY_OMITTED) {
    channel.log.noteHead(event.seq);
    return noteGap(core, now, id);
  }
  channel.log.arrive({ event, key: null, attempts: core.outbox.attempts });
  place(core, now, id);
}

function onError(core: Core, now: Ms, error: ErrorFrame): void {
  const asked = core.requests.answered(error.request);
  if (!asked) {
    if (error.refusedType === 0 || error.refusedType === TYPE_HELLO) onLastWord(core, error);
    else if (error.refusedType === TYPE_OPEN_CHANNEL) onCursorRefused(core, now, error.item);
    else if (error.refusedType === TYPE_SYNC) onSyncRefused(core, now, error);
    // Others without a request end in a close, or are mended by the next hint.
    return;
  }
  switch (asked.for) {
    case "send":
      return onSendRefused(core, now, asked.channel, error);
    case "open":
      return onOpenRefused(core, now, asked.channel, error);
    case "gap":
      return onGapRefused(core, now, asked.channel, error);
    case "older":
    case "range":
      return onPageRefused(core, asked.ticket, error);
    case "sync":
      return onSyncRefused(core, now, error);
    case "read":
      return onReadRefused(core, now, asked.channel, error);
    // Counting goes on with the next head; after AUTH_REFRESH the session ends with its token, and the next one has a new one.
  }
}
