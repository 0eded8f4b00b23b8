/**
 * When there is a connection: the first, the next one after a loss, none after a final word.
 *
 * A lost connection is followed by another after a delay with full jitter, at least as long as the node advised; the class of
 * the code says what comes before it: nothing, forgetting what is known, a new token, or the end. A GOAWAY names a window,
 * and this client moves at a moment of its own within it. Between connections nothing of the old one is left but the numbers
 * that resume it.
 */

import { Code, adviceOf, isProtocolCode } from "../wire/codes.js";
import type { ErrorFrame } from "../wire/server-frame.js";
import type { Limits } from "../wire/values.js";
import { AliasBook } from "./alias.js";
import { ADVICE_MAX_MS, Backoff, type Ms } from "./backoff.js";
import { SyncState } from "./catchup.js";
import type { Config, Core } from "./core.js";
import { Credit } from "./credit.js";
import type { ConnectionState, StopReason } from "./event.js";
import { Heartbeat } from "./heartbeat.js";
import { dropUnplaced } from "./placing.js";
import { Requests } from "./requests.js";
import { sayHello } from "./resume.js";

/** From the wish to connect to WELCOME: name, TCP, TLS, upgrade, HELLO. */
const HANDSHAKE_MAX_MS = 15_000;
/** A connection that lasted this long clears what was held against the node (P-057). */
const STABLE_MS = 10_000;

type Phase =
  /** Not started, or stopped. */
  | { is: "off" }
  | { is: "waiting"; until: Ms }
  /** The transport is being opened; then HELLO is out. */
  | { is: "handshaking"; deadline: Ms; helloSent: boolean }
  | { is: "online"; since: Ms };

/** The connection, or the wait for one. */
export class Link {
  phase: Phase = { is: "off" };
  connection = 0;
  readonly backoff: Backoff;
  /** The last connection was ended by a code: WELCOME alone does not clear the backoff. */
  endedByCode = false;
  refreshToken = false;
  /** ERROR about the connection itself, which comes before its close. */
  lastWord: { code: number; retryAfterMs: number } | null = null;
  /** When to leave a node that is going away. */
  leaveAt: Ms | null = null;
  heartbeat = new Heartbeat(0);
  credit: Credit;

  constructor(config: Config) {
    this.backoff = new Backoff(config.reconnectBaseMs, config.reconnectCapMs);
    this.credit = new Credit(config.creditBytes);
  }

  isOnline(): boolean {
    return this.phase.is === "online";
  }

  /** Whether new sends may go out: not to a node that is leaving. */
  takesSends(): boolean {
    return this.isOnline() && this.leaveAt === null;
  }

  nextAt(): Ms {
    switch (this.phase.is) {
      case "off":
        return Infinity;
      case "waiting":
        return this.phase.until;
      case "handshaking":
        return this.phase.deadline;
      case "online":
        return Math.min(this.heartbeat.nextAt(), this.leaveAt ?? Infinity);
    }
  }

  isCurrent(connection: number): boolean {
    return connection === this.connection && (this.phase.is === "handshaking" || this.phase.is === "online");
  }
}

export function onStart(core: Core): void {
  if (core.link.phase.is !== "off") return;
  core.link.backoff.succeeded();
  // Connects with the pump that follows every input.
  core.link.phase = { is: "waiting", until: -Infinity };
}

export function onHurry(core: Core, now: Ms): void {
  if (core.link.phase.is === "waiting") connect(core, now);
  else if (core.link.phase.is === "online") core.link.heartbeat.probe(now);
}

function connect(core: Core, now: Ms): void {
  const link = core.link;
  link.connection += 1;
  link.phase = { is: "handshaking", deadline: now + HANDSHAKE_MAX_MS, helloSent: false };
  link.lastWord = null;
  link.leaveAt = null;
  link.heartbeat = new Heartbeat(now);
  link.credit = new Credit(core.config.creditBytes);
  core.out.link.push({ do: "connect", connection: link.connection, refreshToken: link.refreshToken });
  link.refreshToken = false;
  say(core, { is: "connecting" });
}

export function onConnected(core: Core, now: Ms, connection: number, token: string): void {
  const phase = core.link.phase;
  if (!core.link.isCurrent(connection) || phase.is !== "handshaking" || phase.helloSent) return;
  phase.helloSent = true;
  core.link.heartbeat = new Heartbeat(now);
  sayHello(core, token);
}

/** WELCOME is here. */
export function onOnline(core: Core, now: Ms, limits: Limits): void {
  core.link.phase = { is: "online", since: now };
  core.link.heartbeat.announced(now, limits.heartbeatMs, limits.silenceMaxMs);
  if (!core.link.endedByCode) core.link.backoff.succeeded();
  say(core, { is: "online" });
}

/** Timers of the connection. */
export function pumpLink(core: Core, now: Ms): void {
  const phase = core.link.phase;
  if (phase.is === "waiting" && now >= phase.until) connect(core, now);
  else if (phase.is === "handshaking" && now >= phase.deadline) dropConnection(core, now, Code.helloTimeout);
  else if (phase.is === "online") pumpOnline(core, now);
}

function pumpOnline(core: Core, now: Ms): void {
  if (core.link.leaveAt !== null && now >= core.link.leaveAt) {
    core.put({ is: "goodbye" });
    dropConnection(core, now, Code.goingAway);
    return;
  }
  const due = core.link.heartbeat.due(now);
  if (due === "dead") dropConnection(core, now, Code.idleTimeout);
  else if (due !== null) core.put({ is: "ping", nonce: due });
}

/** ERROR that is about no request: the word before a close. */
export function onLastWord(core: Core, { code, retryAfterMs }: ErrorFrame): void {
  core.link.lastWord = { code, retryAfterMs };
}

export function onGoaway(core: Core, now: Ms, delayMinMs: number, delayMaxMs: number): void {
  const delay = core.jitter.between(delayMinMs, delayMaxMs);
  core.link.leaveAt = now + Math.min(delay, ADVICE_MAX_MS);
}

export function onAuthExpiring(core: Core): void {
  core.out.link.push({ do: "refresh-token", connection: core.link.connection });
}

export function onTokenRefreshed(core: Core, connection: number, token: string): void {
  if (!core.link.isOnline() || !core.link.isCurrent(connection)) return;
  core.put({ is: "auth-refresh", request: core.requests.ask({ for: "auth" }), token });
}

export function onTokenRejected(core: Core, connection: number): void {
  if (core.link.isCurrent(connection)) stop(core, Code.unauthenticated, "logged-out");
}

/** The transport says that it is closed. */
export function onClosed(core: Core, now: Ms, connection: number, code: number | null): void {
  if (core.link.isCurrent(connection)) lost(core, now, code);
}

/** We end this connection, and connect again. */
export function dropConnection(core: Core, now: Ms, code: number): void {
  const frames = core.frames.take();
  core.out.link.push({ do: "close", connection: core.link.connection, code });
  lost(core, now, null);
  // Only silence and farewells are no reason to come back more slowly each time.
  core.link.endedByCode = code !== Code.goingAway && code !== Code.idleTimeout && code !== Code.helloTimeout;
  // What was said before leaving (GOODBYE) still goes out; the driver writes frames before it closes.
  core.out.frames.push(...frames);
}

function lost(core: Core, now: Ms, closeCode: number | null): void {
  const link = core.link;
  const word = link.lastWord;
  link.lastWord = null;
  const code = isProtocolCode(closeCode) ? closeCode : (word?.code ?? closeCode);
  if (link.phase.is === "online" && now >= link.phase.since + STABLE_MS) link.backoff.succeeded();
  const leaveAt = link.leaveAt;
  link.leaveAt = null;
  endConnection(core);
  link.endedByCode = isProtocolCode(code);
  if (code === Code.unsupportedVersion) return stopped(core, "unsupported-version", code);
  // Another connection of this device took over: it works, and two that replace each other would never end.
  if (code === Code.sessionReplaced) return stopped(core, "ended", code);
  switch (code === null ? "resume" : adviceOf(code)) {
    case "stop":
      return stopped(core, "ended", code);
    case "authenticate":
      link.refreshToken = true;
      break;
    case "afresh":
      forget(core);
  }
  const until = leaveAt !== null ? Math.max(leaveAt, now) : now + link.backoff.failed(word?.retryAfterMs ?? 0, core.jitter);
  link.phase = { is: "waiting", until };
  say(core, { is: "offline", retryInMs: until - now, code });
}

/** Nothing of the connection is left; what it did not finish waits for the next one. */
function endConnection(core: Core): void {
  core.frames.clear();
  core.aliases = new AliasBook();
  core.cursors = [];
  for (const channel of core.outbox.onDisconnected()) core.outboxChanged.add(channel);
  for (const asked of core.requests.unanswered()) {
    if ("ticket" in asked) core.out.answers.push({ ticket: asked.ticket, outcome: { is: "offline" } });
  }
  core.requests = new Requests();
  core.sync = new SyncState();
  core.gaps.clear();
  for (const channel of core.known.values()) channel.onDisconnected();
}

/** Everything that came from the node is void; what is still to be sent is not. */
export function forget(core: Core): void {
  for (const channel of core.known.keys()) {
    dropUnplaced(core, channel);
    core.out.events.push({ is: "channel-reset", channel });
  }
  core.known.clear();
  core.changed.clear();
  core.gaps.clear();
  core.marksDue.clear();
  core.meta.generation = 0;
  core.meta.syncToken = new Uint8Array();
  core.meta.listing = { round: 0, phase: "none" };
  core.out.persist.push({ remove: "everything-received" });
  core.saveMeta();
}

export function onStop(core: Core): void {
  if (core.link.isOnline()) core.put({ is: "goodbye" });
  stop(core, Code.goingAway, "closed");
}

export function stop(core: Core, code: number, reason: StopReason): void {
  const frames = core.frames.take();
  const phase = core.link.phase.is;
  if (phase === "handshaking" || phase === "online") core.out.link.push({ do: "close", connection: core.link.connection, code });
  endConnection(core);
  stopped(core, reason, null);
  core.out.frames.push(...frames);
}

function stopped(core: Core, reason: StopReason, code: number | null): void {
  core.link.phase = { is: "off" };
  say(core, { is: "stopped", reason, code });
}

function say(core: Core, state: ConnectionState): void {
  core.out.events.push({ is: "connection", state });
}
