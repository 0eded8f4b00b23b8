/** The list of conversations, with what is new in each; one's own menu; how the connection is. */

import type { ChannelInfo, ClientEvent, Id, Message } from "@conch/sdk";
import { useEffect, useRef, useState } from "preact/hooks";
import { Devices, LogOut, NewConversation } from "./dialogs.js";
import { clean } from "./names.js";
import { describe } from "./notes.js";
import { Avatar, Icon, IconButton } from "./parts.js";
import { titleOf, useChat, useEvents } from "./state.js";
import { brief } from "./time.js";

const concerns = (event: ClientEvent): boolean => event.is !== "sends-delayed";

export function Sidebar({ selected, onLogOut }: { selected: Id | null; onLogOut: () => void }) {
  const { client, people } = useChat();
  const [dialog, setDialog] = useState<"new" | "devices" | "log-out" | null>(null);
  const previews = usePreviews();
  const channels = client.channels().sort((a, b) => (previews.get(b.channel)?.timeMs ?? 0) - (previews.get(a.channel)?.timeMs ?? 0) || b.used - a.used);
  const menu = useRef<HTMLDetailsElement>(null);
  const close = (): void => menu.current?.removeAttribute("open");
  const waiting = channels.reduce((sum, it) => sum + client.pending(it.channel).filter((one) => one.state === "waiting").length, 0);
  const isFresh = channels.length === 0;
  const isLoading = isFresh && client.connection.is !== "online";

  return (
    <aside class="sidebar">
      <header class="sidebar-head">
        <h1>Conversations</h1>
        <IconButton icon="plus" label="New conversation" onClick={() => setDialog("new")} />
        <details class="menu" ref={menu} onBlur={(event) => event.currentTarget.contains(event.relatedTarget as Node | null) || close()}>
          <summary class="icon-button" aria-label="Your account" title="Your account">
            <Icon name="menu" />
          </summary>
          <div class="menu-body">
            <p class="menu-who">
              <strong dir="auto">{people.display(client.user)}</strong>
              <span class="muted">@{client.session.handle}</span>
            </p>
            <button type="button" onClick={() => (close(), setDialog("devices"))}>Devices</button>
            <button type="button" onClick={() => (close(), waiting > 0 ? setDialog("log-out") : onLogOut())}>Log out</button>
          </div>
        </details>
      </header>
      {isLoading && <p class="empty" role="status">Loading your conversations…</p>}
      {isFresh && !isLoading && (
        <div class="empty">
          <p>No conversations yet.</p>
          <button type="button" class="primary" onClick={() => setDialog("new")}>Write to somebody</button>
          <p class="muted">Your handle is <strong>@{client.session.handle}</strong>: tell it to your friends.</p>
        </div>
      )}
      <nav aria-label="Conversations">
        <ul class="channels">
          {channels.map((info) => (
            <li key={info.channel}>
              <Entry info={info} preview={previews.get(info.channel)} isSelected={info.channel === selected} />
            </li>
          ))}
        </ul>
      </nav>
      {dialog === "new" && <NewConversation onClose={() => setDialog(null)} />}
      {dialog === "log-out" && <LogOut waiting={waiting} onLogOut={onLogOut} onClose={() => setDialog(null)} />}
      {dialog === "devices" && <Devices onClose={() => setDialog(null)} />}
    </aside>
  );
}

function Entry({ info, preview, isSelected }: { info: ChannelInfo; preview: Message | undefined; isSelected: boolean }) {
  const { client, people } = useChat();
  const title = titleOf(info, people);
  const waiting = client.pending(info.channel).at(-1);
  const isRefused = waiting?.state === "refused";
  const line = waiting ? clean(waiting.text.slice(0, 200), "") : preview ? lineOf(preview) : "";

  function lineOf(message: Message): string {
    if (message.content.is !== "text") return describe(message, client.user, people);
    const text = clean(message.content.text.slice(0, 200), "");
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
            {waiting && <Icon name={isRefused ? "alert" : "clock"} />}
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
      void client.messages(channel, 1).then(([newest]) => {
        reading.current.delete(channel);
        if (!newest || newest.seq <= (previews.current.get(channel)?.seq ?? 0)) return;
        previews.current.set(channel, newest);
        draw((n) => n + 1);
      });
    }
  });
  return previews.current;
}

