/** How the connection is, when it is not as it should be; each with what to do about it. */

import { type Client, type ClientEvent, Code, type ConnectionState } from "@conch/sdk";
import { useEffect, useState } from "preact/hooks";
import { useNewerPage } from "./release.js";
import { useChat, useEvents } from "./state.js";

const concerns = (event: ClientEvent): boolean => ["connection", "changed", "outbox", "storage"].includes(event.is);
/** A connection that comes at once is not worth a word. */
const QUIET_MS = 1_200;

function wordsFor(state: ConnectionState, { storage }: Client): string {
  if (state.is === "stopped") {
    if (state.reason === "storage") {
      return storage.is === "full"
        ? "This browser has no room for messages. Free some space, then try again."
        : "This browser does not let this page keep messages any more. What is shown as waiting is safe.";
    }
    if (state.reason === "unsupported-version") return "The server speaks a newer version than this page. Reload the page.";
    if (state.code === Code.sessionReplaced) return "Another window of this device took over.";
    if (state.code === Code.flooding) return "The server stopped this device: too much came from it at once. What you wrote waits here.";
    return "The connection was ended. What you wrote waits here.";
  }
  if (!navigator.onLine) return "You are offline. What you write waits here and goes out by itself.";
  return state.is === "connecting" ? "Connecting…" : "No connection to the server. What you write waits here and goes out by itself.";
}

/** What is to be known of where messages are kept; null: nothing. */
function wordsForStorage({ storage }: Client): string | null {
  if (storage.is === "memory") {
    return storage.why === "newer"
      ? "A newer version of this page runs in another tab. Reload this one; what it has not sent by then is lost."
      : "This browser keeps nothing for this page: what is not sent when you close it is lost.";
  }
  if (storage.is !== "rebuilt") return null;
  const lost = storage.unsentLost === 0 ? "" : storage.unsentLost === 1 ? " One unsent message is lost." : ` ${storage.unsentLost} unsent messages are lost.`;
  return `What this browser kept was damaged, and was loaded from the server again.${lost}`;
}

export function ConnectionBar() {
  const { client } = useChat();
  const [isLong, setLong] = useState(false);
  const hasNewerPage = useNewerPage(client);
  useEvents(concerns);
  const state = client.connection;
  const isOnline = state.is === "online";
  const { isPersistent } = client;
  useEffect(() => {
    setLong(false);
    if (isOnline) return;
    const timer = setTimeout(() => setLong(true), QUIET_MS);
    return () => clearTimeout(timer);
  }, [isOnline]);
  useEffect(() => {
    if (isPersistent) return;
    // Nothing here outlives the tab: who would lose something by closing it is asked.
    const ask = (event: BeforeUnloadEvent): void => {
      if (client.channels().some(({ channel }) => client.outbox(channel).length > 0)) event.preventDefault();
    };
    addEventListener("beforeunload", ask);
    return () => removeEventListener("beforeunload", ask);
  }, [client, isPersistent]);

  const isShown = !isOnline && (isLong || state.is === "stopped");
  const reload = <button type="button" class="link" onClick={() => location.reload()}>Reload</button>;
  const tryNow = (
    <button type="button" class="link" onClick={() => void client.hurry().catch(() => {})}>{state.is === "stopped" ? "Try again" : "Try now"}</button>
  );
  const storageWords = wordsForStorage(client);
  return (
    <div class="connection" role="status" data-state={state.is}>
      {isShown && (
        <p>
          {wordsFor(state, client)}{" "}
          {state.is === "stopped" && state.reason !== "storage" ? reload : state.is !== "connecting" && tryNow}
        </p>
      )}
      {hasNewerPage && state.is !== "stopped" && <p class="connection-news">The server has a newer version of this page. What you typed stays. {reload}</p>}
      {storageWords && <p>{storageWords}</p>}
    </div>
  );
}
