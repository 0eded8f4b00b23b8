/**
 * Whether the node gives out another page than the one that is open here: it was updated while this tab stayed.
 *
 * The page names its scripts by their content, so an index that does not name this one is another page. Asked after a
 * connection came back or could not be made; never before there was one.
 */

import type { Client } from "@conch/sdk";
import { useEffect, useState } from "preact/hooks";

const own = new URL(import.meta.url).pathname;
const ASK_EVERY_MS = 20_000;

async function isOutdated(): Promise<boolean> {
  try {
    const answer = await fetch("/", { headers: { Accept: "text/html" }, cache: "no-store", credentials: "omit" });
    const text = answer.ok ? await answer.text() : "";
    return text.includes("<script") && !text.includes(own);
  } catch {
    return false;
  }
}

/** True from the moment that there is a newer page. */
export function useNewerPage(client: Client): boolean {
  const [isThere, setThere] = useState(false);
  useEffect(() => {
    let wasOnline = client.connection.is === "online";
    let askedAt = -Infinity;
    let isGone = false;
    const stop = client.on((event) => {
      if (event.is !== "connection" || event.state.is === "connecting") return;
      const wasFirst = !wasOnline && event.state.is === "online";
      wasOnline ||= event.state.is === "online";
      const now = performance.now();
      if (wasFirst || (event.state.is === "offline" && now < askedAt + ASK_EVERY_MS)) return;
      askedAt = now;
      void isOutdated().then((it) => it && !isGone && setThere(true));
    });
    return () => {
      isGone = true;
      stop();
    };
  }, [client]);
  return isThere;
}
