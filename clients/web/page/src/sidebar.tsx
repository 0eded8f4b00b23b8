/** The list of conversations, with what is new in each; one's own menu; how the connection is. */

import type { ChannelInfo, ClientEvent, Id, Message } from "@conch/sdk";
import { useEffect, useRef, useState } from "preact/hooks";
import { Devices, LogOut, NewConversation } from "./dialogs.js";
import { clean } from "./names.js";
import { describe } from "./notes.js";
import { Avatar, Icon, IconButton, Logo } from "./parts.js";
import { titleOf, useChat, useEvents } from "./state.js";
import { isBare } from "./rows.js";
import { brief } from "./time.js";

const concerns = (event: ClientEvent): boolean => event.is !== "sends-delayed";

export function Sidebar({ selected, onLogOut }: { selected: Id | null; onLogOut: () => void }) {
  const { client, people, drafts } = useChat();
  const [dialog, setDialog] = useState<"new" | "devices" | "log-out" | null>(null);
  const previews = usePreviews();
  const channels = client.channels().sort((a, b) => (previews.get(b.channel)?.timeMs ?? 0) - (previews.get(a.channel)?.timeMs ?? 0) || b.used - a.used);
  const menu = useRef<HTMLDetailsElement>(null);
  const close = (): void => menu.current?.removeAttribute("open");
  /** A dialog gives the focus back to what had it: not to a part of a menu that is closed by then. */
  const choose = (what: "devices" | "log-out" | null): void => {
    menu.current?.querySelector("summary")?.focus();
    close();
    if (what) setDialog(what);
    else onLogOut();
  };
  const waiting = channels.reduce((sum, it) => sum + client.outbox(it.channel).filter((one) => one.state !== "sent").length, 0);
  const isFresh = channels.length === 0;
  const isLoading = isFresh && client.connection.is !== "online";

  const list = (
    <section class="sidebar" aria-label="Conversations">
      <header class="sidebar-head">
        <h2>Conversations</h2>
        <IconButton icon="plus" label="New conversation" onClick={() => setDialog("new")} />
        <details
          class="menu" ref={menu} onBlur={(event) => event.currentTarget.contains(event.relatedTarget as Node | null) || close()}
          onKeyDown={(event) => event.key === "Escape" && (close(), menu.current?.querySelector("summary")?.focus())}
        >
          <summary class="icon-button" aria-label="Your account" title="Your account">
            <Icon name="menu" />
          </summary>
          <div class="menu-body">
            <p class="menu-who">
              <strong dir="auto">{people.display(client.user)}</strong>
              <span class="muted">@{client.session.handle}</span>
            </p>
            <button type="button" onClick={() => choose("devices")}>Devices</button>
            <button type="button" onClick={() => choose(waiting > 0 ? "log-out" : null)}>Log out</button>
          </div>
        </details>
      </header>
      {isLoading && <p class="empty" role="status">Loading your conversations…</p>}
      {isFresh && !isLoading && (
        <div class="empty">
          <Logo />
          <p>No conversations yet.</p>
          <button type="button" class="primary" onClick={() => setDialog("new")}>Write to somebody</button>
          <p class="muted">Your handle is <strong>@{client.session.handle}</strong>: tell it to your friends.</p>
        </div>
      )}
      <nav aria-label="Conversations" onKeyDown={stepBetweenEntries}>
        <ul class="channels">
          {channels.map((info) => (
            <li key={info.channel}>
              <Entry info={info} preview={previews.get(info.channel)} isSelected={info.channel === selected} draft={info.channel === selected ? "" : drafts.get(info.channel)} />
            </li>
          ))}
        </ul>
      </nav>
    </section>
  );
  // Not in the list: on a phone that is turned the list goes away, and what is open in front of it stays.
  return (
    <>
      {list}
      {dialog === "new" && <NewConversation onClose={() => setDialog(null)} />}
      {dialog === "log-out" && <LogOut waiting={waiting} onLogOut={onLogOut} onClose={() => setDialog(null)} />}
      {dialog === "devices" && <Devices onClose={() => setDialog(null)} />}
    </>
  );
}

/** Up and down go from one conversation to the next. */
function stepBetweenEntries(event: KeyboardEvent & { currentTarget: HTMLElement }): void {
  const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
  if (step === 0) return;
  const entries = [...event.currentTarget.querySelectorAll<HTMLElement>(".entry")];
  const next = entries[entries.indexOf(document.activeElement as HTMLElement) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

interface EntryProps {
  info: ChannelInfo;
  preview: Message | undefined;
  isSelected: boolean;
  draft: string;
}

function Entry({ info, preview, isSelected, draft }: EntryProps) {
  const { client, people } = useChat();
  const title = titleOf(info, people);
  const waiting = client.outbox(info.channel).at(-1);
  const isRefused = waiting?.state === "refused";
  const hasDraft = draft.trim() !== "";
  const line = hasDraft ? short(draft) : waiting ? short(waiting.text) : preview ? lineOf(preview) : "";

  function lineOf(message: Message): string {
    if (isBare(message)) return "No messages yet";
    if (message.content.is !== "text") return describe(message, client.user, people);
    const text = short(message.content.text);
    if (message.author === client.user) return `You: ${text}`;
    return info.kind === "group" ? `${people.display(message.author)}: ${text}` : text;
  }

  return (
    <a class={`entry${info.unread > 0 ? " entry-new" : ""}`} href={`#/c/${info.channel}`} aria-current={isSelected ? "page" : undefined}>
      <Avatar id={info.peer ?? info.channel} name={title} group={info.kind === "group"} />
      <span class="entry-main">
        <span class="entry-top">
          <span class="entry-title" dir="auto">{title}</span>
          {preview && <time class="entry-time">{brief(preview.timeMs)}</time>}
        </span>
        <span class="entry-bottom">
          <span class="entry-line" dir="auto">
            {hasDraft ? <span class="entry-draft">Draft: </span> : waiting && <Icon name={isRefused ? "alert" : "clock"} />}
            {!hasDraft && waiting && <span class="visually-hidden">{isRefused ? "Not sent: " : waiting.state === "waiting" ? "Waiting: " : "Sending: "}</span>}
            {line}
          </span>
          {info.unread > 0 && (
            <span class="badge">
              {info.unread > 999 ? "999+" : info.unread}
              <span class="visually-hidden"> unread</span>
            </span>
          )}
        </span>
      </span>
    </a>
  );
}

const short = (text: string): string => clean(text, "…", 120);

/** The newest event of each conversation: from the store at first, then as they come. */
function usePreviews(): Map<Id, Message> {
  const { client } = useChat();
  const previews = useRef(new Map<Id, Message>());
  const reading = useRef(new Set<Id>());
  const [, draw] = useState(0);
  const handle = useRef((event: ClientEvent): void => {
    if (event.is === "message") previews.current.set(event.message.channel, event.message);
    if (event.is === "channel-reset" || event.is === "skipped") previews.current.delete(event.channel);
  });
  useEvents(concerns, handle.current);
  useEffect(() => {
    for (const { channel, heldTo } of client.channels()) {
      if ((previews.current.get(channel)?.seq ?? 0) >= heldTo || reading.current.has(channel)) continue;
      reading.current.add(channel);
      const done = (): unknown => reading.current.delete(channel);
      void client.messages(channel, 1).then(([newest]) => {
        done();
        if (!newest || newest.seq <= (previews.current.get(channel)?.seq ?? 0)) return;
        previews.current.set(channel, newest);
        draw((n) => n + 1);
      }, done);
    }
  });
  return previews.current;
}

