/**
 * The short numbers of channels on one connection.
 *
 * A channel is *opening* from our HELLO or OPEN_CHANNEL until CHANNEL_OPENED says which alias holds; only then may a SEND use
 * it, because the node keeps an alias of its own if it chose one first. Aliases are never reused on a connection, so events
 * still on their way when a channel is closed find their channel.
 */

import type { Id } from "../wire/values.js";

/** Highest alias that a client may choose; the node's have the top bit set. */
const CLIENT_ALIAS_MAX = 0x7fff_ffff;

export const isNodeAlias = (alias: number): boolean => alias > CLIENT_ALIAS_MAX;

/** The book of one connection; a new connection starts an empty one. */
export class AliasBook {
  private last = 0;
  /** An alias, or null while the channel is opening. */
  private readonly states = new Map<Id, number | null>();
  private readonly byAlias = new Map<number, Id>();

  /** An alias for a channel that is about to be opened; null when the connection has used them all up. */
  choose(channel: Id): number | null {
    const alias = this.spare();
    if (alias === null) return null;
    this.states.set(channel, null);
    this.byAlias.set(alias, channel);
    return alias;
  }

  /** An alias for asking again about a channel that is open: the one that it has goes on to hold. */
  spare(): number | null {
    if (this.last === CLIENT_ALIAS_MAX) return null;
    this.last += 1;
    return this.last;
  }

  /** CHANNEL_OPENED: this alias holds from here on. */
  opened(channel: Id, alias: number): void {
    this.states.set(channel, alias);
    this.byAlias.set(alias, channel);
  }

  /** The channel did not open, or was closed. Returns the alias that was open. */
  forget(channel: Id): number | null {
    const alias = this.states.get(channel) ?? null;
    this.states.delete(channel);
    return alias;
  }

  /** The alias that sends may use. */
  open(channel: Id): number | null {
    return this.states.get(channel) ?? null;
  }

  isOpening(channel: Id): boolean {
    return this.states.get(channel) === null;
  }

  /** Whose events carry this alias, also after the channel was closed. */
  channel(alias: number): Id | undefined {
    return this.byAlias.get(alias);
  }
}
