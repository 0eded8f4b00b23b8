/** One conversation: its head, its messages, and where to write. */

import type { ChannelInfo, ClientEvent, Id, Message } from "@conch/sdk";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Composer } from "./composer.js";
import { GroupDialog } from "./group.js";
import { History } from "./history.js";
import { MessageList } from "./message-list.js";
import { clean } from "./names.js";
import { describe } from "./notes.js";
import { Avatar, IconButton } from "./parts.js";
import { isBare } from "./rows.js";
import { route, titleOf, useChat } from "./state.js";

/** After so long a conversation that is not there is said not to be. */
const PATIENCE_MS = 4_000;
/** More of a text is not read out. */
const SPOKEN_CHARS = 300;

export function Conversation({ channel }: { channel: Id }) {
  const { client, people } = useChat();
  const [, setVersion] = useState(0);
  const [dialog, setDialog] = useState(false);
  const [isLate, setLate] = useState(false);
  const [spoken, setSpoken] = useState("");
  const due = useRef(0);
  const draw = useRef(() => {
    due.current ||= requestAnimationFrame(() => {
      due.current = 0;
      setVersion((n) => n + 1);
    });
  }).current;
  const jump = useRef<() => void>(() => {});
  const write = useRef<(text: string) => void>(() => {});
  const heading = useRef<HTMLHeadingElement>(null);
  const history = useMemo(() => new History(client, channel, draw), [client, channel]);
  const info = client.channelInfo(channel);
  const isThere = info !== undefined;
  // Where new messages begin is settled when the conversation is opened, and again while nobody looks.
  const readSeq = useRef<number | null | undefined>(undefined);
  if (readSeq.current === undefined && info) readSeq.current = info.unread > 0 ? info.readSeq : null;

  useEffect(() => {
    void client.openChannel(channel).catch(() => {});
    const late = setTimeout(() => setLate(true), PATIENCE_MS);
    const say = (message: Message): void => {
      if (message.author === client.user || isBare(message) || document.visibilityState !== "visible") return;
      const text = message.content.is === "text" ? `${people.display(message.author)}: ${message.content.text.slice(0, SPOKEN_CHARS)}` : null;
      setSpoken(text ?? describe(message, client.user, people));
    };
    const stop = client.on((event: ClientEvent) => {
      if (event.is === "message" && event.message.channel === channel) {
        const { author, seq } = event.message;
        if (document.visibilityState === "hidden" && author !== client.user) readSeq.current ??= seq - 1;
        say(event.message);
        void history.follow(event.message);
      }
      if ((event.is === "channel-reset" || event.is === "skipped") && event.channel === channel) void history.toEnd();
      if (event.is === "changed") void history.catchUp();
      draw();
    });
    const onVisibility = (): void => {
      if (document.visibilityState === "hidden") readSeq.current = null;
    };
    document.addEventListener("visibilitychange", onVisibility);
    return () => {
      stop();
      void client.closeChannel(channel).catch(() => {});
      clearTimeout(late);
      document.removeEventListener("visibilitychange", onVisibility);
      cancelAnimationFrame(due.current);
      due.current = 0;
    };
  }, [client, channel, history]);
  useEffect(() => {
    if (!isThere) return;
    const line = readSeq.current;
    void (line === null || line === undefined ? history.toEnd() : history.toLine(line));
    // Without a keyboard the field does not take the focus: who listens hears where they are.
    if (document.activeElement === document.body || document.activeElement?.matches(".entry")) heading.current?.focus();
  }, [history, isThere]);

  const sizeInWords = useSize(info);
  const onSend = (): void => {
    // Who answers has seen what was new.
    readSeq.current = null;
    jump.current();
  };
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
  const about = info.kind === "group" ? (info.left ? "You are no longer in this group" : sizeInWords) : peer ? `@${peer.handle}` : "";
  return (
    <section class="conversation" aria-label={title}>
      <header class="conversation-head">
        <a class="icon-button back" href="#/" aria-label="All conversations" title="All conversations">
          <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d="M15 5l-7 7 7 7" /></svg>
        </a>
        <Avatar id={info.peer ?? info.channel} name={title} group={info.kind === "group"} />
        <div class="conversation-title">
          <h2 dir="auto" ref={heading} tabIndex={-1}>{title}</h2>
          <p class="muted">{about}</p>
        </div>
        {info.kind === "group" && !info.left && <IconButton icon="people" label="Members" onClick={() => setDialog(true)} />}
      </header>
      <MessageList info={info} title={title} history={history} pending={client.outbox(channel)} readSeq={readSeq.current ?? null} jump={jump} onEdit={(text) => write.current(text)} />
      <p class="visually-hidden" aria-live="polite" data-spoken>{clean(spoken, "", SPOKEN_CHARS)}</p>
      <Composer key={channel} info={info} title={title} onSend={onSend} write={write} />
      {dialog && <GroupDialog info={info} title={title} onClose={() => setDialog(false)} />}
    </section>
  );
}

/** How many are in a group, in words: asked once, then counted along. Offline: as many as this device knows of, or that it is a group. */
function useSize(info: ChannelInfo | undefined): string {
  const { client, people } = useChat();
  const [size, setSize] = useState(0);
  const isIn = info?.kind === "group" && !info.left;
  const id = info?.channel;
  useEffect(() => {
    if (!isIn || id === undefined) return;
    let isGone = false;
    let isKnown = false;
    const ask = (): void => {
      client.members(id).then(
        (members) => {
          isKnown = true;
          for (const it of members) people.learn(it);
          if (!isGone) setSize(members.length);
        },
        () => {},
      );
    };
    ask();
    const stop = client.on((event) => {
      if (event.is === "connection" && event.state.is === "online" && !isKnown) ask();
      if (event.is !== "message" || event.message.channel !== id || !isKnown) return;
      const { content } = event.message;
      if (content.is === "members-added") setSize((n) => n + content.members.length);
      if (content.is === "member-removed" || content.is === "member-left") setSize((n) => n - content.members.length);
    });
    return () => {
      isGone = true;
      stop();
    };
  }, [client, people, id, isIn]);
  return size < 1 ? "Group" : size === 1 ? "Only you" : `${size.toLocaleString()} members`;
}
