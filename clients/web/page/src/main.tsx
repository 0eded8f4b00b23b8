/** The page: sign-up or the chat, and nothing of either in the other. */

import { type Client, type ClientEvent, Code, type ConnectionState, type Id, Session } from "@conch/sdk";
import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ConnectionBar } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Drafts } from "./drafts.js";
import { Logo } from "./parts.js";
import { Sidebar } from "./sidebar.js";
import { ChatContext, People, forgetPeople, openClient, route, server, tokens } from "./state.js";
import { Welcome } from "./welcome.js";

function App() {
  const [session, setSession] = useState(() => Session.load(server, tokens));
  const [open, setOpen] = useState<{ client: Client; drafts: Drafts } | null>(null);
  const [notice, setNotice] = useState<string | null>(null);

  useEffect(() => {
    if (!session) return;
    let opened: { client: Client; drafts: Drafts } | null = null;
    let isGone = false;
    const leave = (words: string): void => {
      if (isGone) return;
      isGone = true;
      session.forget();
      forgetPeople(session.user);
      setNotice(words);
      route.go(null);
      setOpen(null);
      setSession(null);
    };
    const hear = (event: ClientEvent): void => {
      const word = event.is === "connection" ? endOf(event.state) : null;
      if (word) {
        const ended = opened!;
        opened = null;
        leave(keepUnsent(ended) ? `${word} What you wrote and was not sent is there again when you log in.` : word);
        // What this device received is not its own any more.
        void ended.client.logOut().catch(() => {});
      } else if (event.is === "over") {
        // What was written down here in between would stay.
        opened?.drafts.forget();
        leave("You logged out in another window.");
      }
    };
    openClient(session).then(
      (it) => {
        if (isGone) return void it.close();
        opened = { client: it, drafts: new Drafts(it.user) };
        it.on(hear);
        setOpen(opened);
      },
      () => leave("This browser does not run the page. Try another one, or a newer version of it."),
    );
    return () => {
      isGone = true;
      opened?.drafts.end();
      void opened?.client.close();
    };
  }, [session]);

  const logOut = async ({ client, drafts }: { client: Client; drafts: Drafts }): Promise<void> => {
    drafts.forget();
    await client.logOut();
    // Last: an answer about people may have come in between.
    forgetPeople(client.user);
    setNotice(null);
    route.go(null);
    setOpen(null);
    setSession(null);
  };
  if (!session) return <Welcome notice={notice} onSession={setSession} />;
  if (!open) return <p class="boot" role="status">One moment…</p>;
  return <ChatPage client={open.client} drafts={open.drafts} onLogOut={() => void logOut(open)} />;
}

/** Why this device is logged out, if it is. */
function endOf(state: ConnectionState): string | null {
  if (state.is !== "stopped") return null;
  if (state.reason === "logged-out") return "You are logged out on this device. Log in again.";
  if (state.reason === "wrong-account") return "What is kept here belongs to another account. Log in again.";
  if (state.reason !== "ended") return null;
  if (state.code === Code.deviceRevoked) return "This device was logged out from another one. Log in again.";
  return state.code === Code.accountClosed ? "This account was closed." : null;
}

/** Nobody logged out by themselves: what they wrote becomes drafts, by one of the tabs. Returns whether there was something. */
function keepUnsent({ client, drafts }: { client: Client; drafts: Drafts }): boolean {
  let isAny = false;
  for (const { channel } of client.channels()) {
    for (const { text, state } of client.outbox(channel)) {
      if (state === "sent") continue;
      if (client.isLeader) drafts.add(channel, text);
      isAny = true;
    }
  }
  drafts.save();
  return isAny;
}

function ChatPage({ client, drafts, onLogOut }: { client: Client; drafts: Drafts; onLogOut: () => void }) {
  const [, draw] = useState(0);
  const [selected, setSelected] = useState<Id | null>(route.read());
  const people = useMemo(() => new People(client, () => draw((n) => n + 1)), [client]);
  // Another object with every drawing, so that names that came are drawn everywhere.
  const chat = { client, people, drafts };
  const title = useRef("");
  const before = useRef(selected);

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
      document.title = "Conch";
    };
  }, [client]);
  useEffect(() => {
    // Back in the list, the focus is where it left from.
    if (selected === null && before.current !== null) document.querySelector<HTMLElement>(`.entry[href="#/c/${before.current}"]`)?.focus();
    before.current = selected;
  }, [selected]);

  return (
    <ChatContext.Provider value={chat}>
      <main class={`chat${selected ? " chat-open" : ""}`}>
        <h1 class="visually-hidden">Conch</h1>
        <ConnectionBar />
        <Sidebar selected={selected} onLogOut={onLogOut} />
        <div class="chat-main">
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
        </div>
      </main>
    </ChatContext.Provider>
  );
}

render(<App />, document.getElementById("app")!);
