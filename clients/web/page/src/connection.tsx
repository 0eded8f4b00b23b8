/** How the connection is, when it is not as it should be; each with what to do about it. */

import type { ClientEvent } from "@conch/sdk";
import { useEffect, useState } from "preact/hooks";
import { useChat, useEvents } from "./state.js";

const concerns = (event: ClientEvent): boolean => event.is === "connection" || event.is === "changed";
/** A connection that comes at once is not worth a word. */
const QUIET_MS = 1_200;

export function ConnectionBar() {
  const { client } = useChat();
  const [isLong, setLong] = useState(false);
  useEvents(concerns);
  const state = client.connection;
  const isOnline = state.is === "online";
  useEffect(() => {
    setLong(false);
    if (isOnline) return;
    const timer = setTimeout(() => setLong(true), QUIET_MS);
    return () => clearTimeout(timer);
  }, [isOnline]);

  const words = (): string => {
    if (state.is === "stopped") {
      if (state.reason === "storage") return "This browser has no room left: nothing more can be kept here. Free some space, then reload.";
      if (state.reason === "unsupported-version") return "The server speaks a newer version. Reload the page.";
      return "Another window of this device took over.";
    }
    if (!navigator.onLine) return "You are offline. What you write waits here and goes out by itself.";
    return state.is === "connecting" ? "Connecting…" : "No connection to the server. What you write waits here and goes out by itself.";
  };
  const isShown = !isOnline && (isLong || state.is === "stopped");
  return (
    <div class="connection" role="status" data-state={state.is}>
      {isShown && (
        <p>
          {words()}{" "}
          {state.is === "stopped" ? (
            <button type="button" class="link" onClick={() => location.reload()}>Reload</button>
          ) : (
            state.is === "offline" && <button type="button" class="link" onClick={() => void client.retryNow()}>Try now</button>
          )}
        </p>
      )}
      {!client.isPersistent && (
        <p>This browser keeps nothing for this page: what is not sent when you close it is lost.</p>
      )}
    </div>
  );
}
