/** The messages of one channel, growing at both ends. */

import type { Id } from "@conch/sdk";
import { useMemo, useSyncExternalStore } from "react";
import { useClient } from "./provider.js";
import { MessageWindow, type MessagesState } from "./window.js";

/** Sizes of a window. */
export interface MessagesOptions {
  /** How many are loaded at a time; 50. */
  page?: number;
  /** How many are held at most, ≥ 2 pages; 300. */
  max?: number;
}

/** What {@link useMessages} gives. The functions are the same ones at every rendering. */
export interface Messages extends MessagesState {
  /** Loads one page further up: from this device, else from the node. */
  loadOlder(): Promise<void>;
  /** Loads one page further down, where the window does not reach the newest. */
  loadNewer(): Promise<void>;
  /** Goes to the newest messages. */
  toNewest(): Promise<void>;
}

/**
 * The messages of a channel: the newest page at first, and what comes. While the component is mounted the client knows that the
 * channel is shown. See {@link useInfiniteScroll} for a list that loads by itself and does not jump.
 */
export function useMessages(channel: Id, { page = 50, max = 300 }: MessagesOptions = {}): Messages {
  const client = useClient();
  const window = useMemo(() => new MessageWindow(client, channel, page, Math.max(max, 2 * page)), [client, channel, page, max]);
  const state = useSyncExternalStore(window.subscribe, window.get, window.get);
  return useMemo(
    () => ({ ...state, loadOlder: window.loadOlder, loadNewer: window.loadNewer, toNewest: window.toNewest }),
    [state, window],
  );
}
