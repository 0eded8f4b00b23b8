/** One conversation: its head, its messages, and where to write. */

import type { ClientEvent, Id } from "@conch/sdk";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Composer } from "./composer.js";
import { Members } from "./dialogs.js";
import { History } from "./history.js";
import { MessageList } from "./message-list.js";
import { Avatar, IconButton } from "./parts.js";
import { route, titleOf, useChat } from "./state.js";

/** After so long a conversation that is not there is said not to be. */
const PATIENCE_MS = 4_000;

export function Conversation({ channel }: { channel: Id }) {
  const { client, people } = useChat();
  const [version, setVersion] = useState(0);
  const [dialog, setDialog] = useState(false);
  const [isLate, setLate] = useState(false);
  const due = useRef(0);
  const draw = useRef(() => {
    due.current ||= requestAnimationFrame(() => {
      due.current = 0;
      setVersion((n) => n + 1);
    });
  }).current;
  const history = useMemo(() => new History(client, channel, draw), [client, channel]);
  const info = client.channel(channel);
  // Where new messages begin is settled when the conversation is opened.
  const readSeq = useRef<number | null | undefined>(undefined);
  if (readSeq.current === undefined && info) readSeq.current = info.unread > 0 ? info.readSeq : null;

  useEffect(() => {
    void client.openChannel(channel).catch(() => {});
    void history.toEnd();
    const late = setTimeout(() => setLate(true), PATIENCE_MS);
    const stop = client.on((event: ClientEvent) => {
      if (event.is === "message" && event.message.channel === channel) void history.follow(event.message);
      if ((event.is === "channel-reset" || event.is === "skipped") && event.channel === channel) void history.toEnd();
      if (event.is === "changed") void history.catchUp();
      draw();
    });
    return () => {
      stop();
      clearTimeout(late);
      cancelAnimationFrame(due.current);
      due.current = 0;
    };
  }, [client, channel, history]);

  if (!info) {
    return (
      <section class="conversation conversation-empty" aria-live="polite">
        {isLate ? (
          <div class="empty">
            <p>This conversation is not yours, or not here yet.</p>
            <button type="button" class="primary" onClick={() => route.go(null)}>All conversations</button>
          </div>
        ) : (
          <p class="empty">Loading…</p>
        )}
      </section>
    );
  }
  const title = titleOf(info, people);
  const peer = info.peer === null ? undefined : people.get(info.peer);
  const about = info.kind === "group" ? (info.left ? "You left" : "Group") : peer ? `@${peer.handle}` : "";
  return (
    <section class="conversation" aria-label={title}>
      <header class="conversation-head">
        <a class="icon-button back" href="#/" aria-label="All conversations" title="All conversations">
          <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="M15 5l-7 7 7 7" /></svg>
        </a>
        <Avatar id={info.peer ?? info.channel} name={title} group={info.kind === "group"} />
        <div class="conversation-title">
          <h2 dir="auto">{title}</h2>
          <p class="muted">{about}</p>
        </div>
        {info.kind === "group" && !info.left && <IconButton icon="people" label="Members" onClick={() => setDialog(true)} />}
      </header>
      <MessageList info={info} history={history} pending={client.pending(channel)} readSeq={readSeq.current ?? null} version={version} />
      <Composer key={channel} info={info} title={title} />
      {dialog && <Members info={info} onClose={() => setDialog(false)} />}
    </section>
  );
}
