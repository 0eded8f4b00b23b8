/** Sending into one channel, and what is on its way. */

import type { ClientEvent, Id, MessageKey, OutboxMessage, SendHandle, SendOptions } from "@conch/sdk";
import { useMemo, useSyncExternalStore } from "react";
import { Feed } from "./feed.js";
import { useClient } from "./provider.js";

/** What {@link useSending} gives. The functions are the same ones at every rendering. */
export interface Sending {
  /** Messages of this device on their way or refused, in the order in which they were written: to be drawn behind those that have their place. */
  outbox: readonly OutboxMessage[];
  /** Sends a text; see `Client.send` of the SDK. Rejects where it cannot be kept: then it is still the person's to send. */
  send(text: string, options?: SendOptions): Promise<SendHandle>;
  /** Sends a message that was refused once more, as the newest one. */
  retry(key: MessageKey): Promise<SendHandle>;
  /** Forgets a message that was refused, or takes back one that has never left. */
  cancel(key: MessageKey): Promise<void>;
}

/** Sending into a channel, with the states of what is on its way. */
export function useSending(channel: Id): Sending {
  const client = useClient();
  const feed = useMemo(() => {
    const concerns = (event: ClientEvent): boolean => event.is === "changed" || (event.is === "outbox" && event.channel === channel);
    return new Feed(client, () => client.outbox(channel), concerns);
  }, [client, channel]);
  const outbox = useSyncExternalStore(feed.subscribe, feed.get, feed.get);
  const functions = useMemo(
    () => ({
      send: (text: string, options?: SendOptions) => client.send(channel, text, options),
      retry: (key: MessageKey) => client.retry(key),
      cancel: (key: MessageKey) => client.cancel(key),
    }),
    [client, channel],
  );
  return useMemo(() => ({ outbox, ...functions }), [outbox, functions]);
}
