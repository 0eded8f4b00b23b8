/**
 * HELLO and WELCOME: coming back without losing or repeating anything.
 *
 * HELLO carries the sync token, the cursors of the channels used last (so that their gaps are streamed and sends need no
 * further question), the pending sends, and the session that this one replaces, whose late frames the owners then refuse.
 * Nothing is sent before WELCOME has answered for the pending sends; then everything unresolved goes again, first in its
 * channel and under its old key.
 */

import { Code } from "../wire/codes.js";
import { HELLO_CURSORS_MAX, KEY_KEPT_MS } from "../wire/limits.js";
import type { WelcomeFrame } from "../wire/server-frame.js";
import type { Cursor } from "../wire/values.js";
import type { Ms } from "./backoff.js";
import { forget, onOnline, stop } from "./connect.js";
import type { Core } from "./core.js";
import { noteGap, onSettled, place, trim } from "./placing.js";
import { openIfNeeded } from "./sending.js";

/** Minor version that this client was written for. */
const MINOR = 0;
/** After this long without an answer a cursor of HELLO is taken for refused. */
const CURSORS_WAIT_MS = 5_000;

export function sayHello(core: Core, token: string): void {
  core.put({
    is: "hello",
    minor: MINOR,
    token,
    client: core.config.client,
    syncToken: core.meta.syncToken,
    cursors: cursors(core),
    pending: core.outbox.ask(),
    replaces: core.meta.session,
    creditBytes: core.config.creditBytes,
    push: core.config.push,
  });
}

function cursors(core: Core): Cursor[] {
  const recent = [...core.known.values()]
    .filter((it) => it.leftSeq === null && (it.shown || core.config.push === "all"))
    .sort((a, b) => Number(b.shown) - Number(a.shown) || b.used - a.used)
    .slice(0, HELLO_CURSORS_MAX);
  core.cursors = recent.map((it) => it.id);
  return recent.map((it) => ({
    channel: it.id,
    generation: core.meta.generation,
    seq: it.log.have,
    alias: core.aliases.choose(it.id)!,
  }));
}

/** A cursor of HELLO did not open. Its channel is opened by OPEN_CHANNEL when it is needed. */
export function onCursorRefused(core: Core, now: Ms, index: number): void {
  const channel = core.cursors[index];
  if (channel === undefined) return;
  core.aliases.forget(channel);
  noteGap(core, now, channel);
}

export function onWelcome(core: Core, now: Ms, welcome: WelcomeFrame): void {
  if (core.meta.user !== null && core.meta.user !== welcome.user) return stop(core, Code.goingAway, "wrong-account");
  if (core.meta.generation !== 0 && core.meta.generation !== welcome.generation) forget(core);
  core.meta.user = welcome.user;
  core.meta.generation = welcome.generation;
  core.meta.session = welcome.session;
  core.saveMeta();
  onOnline(core, now, welcome.limits);
  for (const settled of core.outbox.onAnswers(welcome.pending, core.wallMs - KEY_KEPT_MS)) onSettled(core, now, settled);
  // An event that was held may be free now that the pending sends are settled.
  for (const id of core.known.keys()) place(core, now, id);
  // Not when a program starts or a view closes: another tab may still show the channel, and says so within moments; and without
  // a connection all that is here can be read.
  for (const [id, channel] of core.known) if (!channel.shown) trim(core, id);
  core.sync.onWelcome(welcome.inboxPosition, now + CURSORS_WAIT_MS);
  for (const id of core.shown) if (core.known.get(id)?.leftSeq === null) openIfNeeded(core, id);
  // The node streams the gaps of cursors, or says CHANNEL_HEAD; all others are ours to fetch.
  for (const id of core.known.keys()) if (!core.aliases.isOpening(id)) noteGap(core, now, id);
}

/** Cursors that were not answered in time. */
export function giveUpCursors(core: Core, now: Ms): void {
  for (const id of core.known.keys()) {
    if (!core.aliases.isOpening(id) || core.requests.has("open", id)) continue;
    core.aliases.forget(id);
    noteGap(core, now, id);
  }
}
