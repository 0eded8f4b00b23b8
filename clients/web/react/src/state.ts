/** What a client knows: channels, the connection, the storage. */

import type { ChannelInfo, Client, ClientEvent, ConnectionState, Id, StorageState } from "@conch/sdk";
import { useMemo, useSyncExternalStore } from "react";
import { Feed } from "./feed.js";
import { useClient } from "./provider.js";

interface Feeds {
  channels: Feed<ChannelInfo[]>;
  connection: Feed<ConnectionState>;
  storage: Feed<StorageState>;
}

const CHANNELS = new Set<ClientEvent["is"]>(["channel", "channel-removed", "changed"]);
/** One of each per client, shared by all components. */
const feeds = new WeakMap<Client, Feeds>();

function feedsOf(client: Client): Feeds {
  let known = feeds.get(client);
  if (!known) {
    known = {
      channels: new Feed(client, () => client.channels(), (event) => CHANNELS.has(event.is)),
      connection: new Feed(client, () => client.connection, (event) => event.is === "connection" || event.is === "changed"),
      storage: new Feed(client, () => client.storage, (event) => event.is === "storage" || event.is === "changed"),
    };
    feeds.set(client, known);
  }
  return known;
}

function useFeed<T>(feed: Feed<T>): T {
  return useSyncExternalStore(feed.subscribe, feed.get, feed.get);
}

/** All channels, the one used last first. The array and its items are the same ones until something of them changes. */
export function useChannels(): readonly ChannelInfo[] {
  return useFeed(feedsOf(useClient()).channels);
}

/** One channel: name, unread, membership. Undefined while it is not known here. */
export function useChannel(channel: Id): ChannelInfo | undefined {
  const client = useClient();
  const feed = useMemo(() => {
    const concerns = (event: ClientEvent): boolean =>
      event.is === "changed" || (event.is === "channel" && event.info.channel === channel) ||
      (event.is === "channel-removed" && event.channel === channel);
    return new Feed(client, () => client.channelInfo(channel), concerns);
  }, [client, channel]);
  return useFeed(feed);
}

/** Where the connection stands. */
export function useConnection(): ConnectionState {
  return useFeed(feedsOf(useClient()).connection);
}

/** Whether messages can be kept on this device. */
export function useStorage(): StorageState {
  return useFeed(feedsOf(useClient()).storage);
}
