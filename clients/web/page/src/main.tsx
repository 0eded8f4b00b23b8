/** The page: sign-up or the chat, and nothing of either in the other. */

import { type Client, type ClientEvent, type Id, Session } from "@conch/sdk";
import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ConnectionBar } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Logo } from "./parts.js";
import { Sidebar } from "./sidebar.js";
import { ChatContext, People, openClient, route, server, tokens } from "./state.js";
import { Welcome } from "./welcome.js";

function App() {
  const [session, setSession] = useState(() => Session.load(server, tokens));
  const [client, setClient] = useState<Client | null>(null);
  const [notice, setNotice] = useState<string | null>(null);

  useEffect(() => {
    if (!session) return;
    let opened: Client | null = null;
    let isGone = false;
    const over = (event: ClientEvent): void => {
      const isEnded = event.is === "connection" && event.state.is === "stopped" && event.state.reason === "ended" && event.state.code !== 4204;
      if (event.is !== "over" && !isEnded) return;
      setNotice("You are logged out on this device. Log in again.");
      session.forget();
      route.go(null);
      setClient(null);
      setSession(null);
    };
    void openClient(session).then((it) => {
      if (isGone) return it.close();
      opened = it;
      it.on(over);
      setClient(it);
      return undefined;
    });
    return () => {
      isGone = true;
      void opened?.close();
    };
  }, [session]);

  const logOut = async (): Promise<void> => {
    new People(client!, () => {}).forget();
    await client!.logOut();
    setNotice(null);
    route.go(null);
    setClient(null);
    setSession(null);
  };
  if (!session) return <Welcome notice={notice} onSession={setSession} />;
  if (!client) return <p class="boot" role="status">One moment…</p>;
  return <ChatPage client={client} onLogOut={() => void logOut()} />;
}

function ChatPage({ client, onLogOut }: { client: Client; onLogOut: () => void }) {
  const [, draw] = useState(0);
  const [selected, setSelected] = useState<Id | null>(route.read());
  const people = useMemo(() => new People(client, () => draw((n) => n + 1)), [client]);
  // Another object with every drawing, so that names that came are drawn everywhere.
  const chat = { client, people };
  const title = useRef("");

  useEffect(() => {
    const onHash = (): void => setSelected(route.read());
    addEventListener("hashchange", onHash);
    const stop = client.on(() => {
      const unread = client.channels().reduce((sum, it) => sum + it.unread, 0);
      const next = unread > 0 ? `(${unread}) Conch` : "Conch";
      if (next !== title.current) document.title = title.current = next;
    });
    return () => {
      removeEventListener("hashchange", onHash);
      stop();
    };
  }, [client]);

  return (
    <ChatContext.Provider value={chat}>
      <div class={`chat${selected ? " chat-open" : ""}`}>
        <ConnectionBar />
        <Sidebar selected={selected} onLogOut={onLogOut} />
        <main class="chat-main">
          {selected ? (
            <Conversation key={selected} channel={selected} />
          ) : (
            <div class="conversation conversation-empty">
              <div class="empty">
                <Logo />
                <p>Choose a conversation, or begin one.</p>
              </div>
            </div>
          )}
        </main>
      </div>
    </ChatContext.Provider>
  );
}

render(<App />, document.getElementById("app")!);
