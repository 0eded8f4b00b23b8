/**
 * The messages of one conversation, drawn from a {@link History}, and where the person is in them.
 *
 * At the end the list sticks there; elsewhere the row that is on top stays where it is on the screen, whatever is added or cut
 * above and below it.
 */

import type { ChannelInfo, Id, Message, Pending } from "@conch/sdk";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { History } from "./history.js";
import { describe } from "./notes.js";
import { Avatar, Icon } from "./parts.js";
import { type Row, rowsOf } from "./rows.js";
import { useChat } from "./state.js";
import { dayName, exactTime, timeOfDay } from "./time.js";
import { wordsForRefusal } from "./words.js";

/** Pixels from an end at which the next page is fetched. */
const NEAR = 800;
/** Pixels from the end that still count as being there. */
const AT_END = 48;
/** Longer texts are folded. */
const FOLD_CHARS = 2_500;

interface Props {
  info: ChannelInfo;
  history: History;
  pending: Pending[];
  /** Where the line above new messages goes; null: none. */
  readSeq: number | null;
  /** Counts every change, so that places are kept over each. */
  version: number;
}

export function MessageList({ info, history, pending, readSeq, version }: Props) {
  const { client, people } = useChat();
  const box = useRef<HTMLDivElement>(null);
  const sticks = useRef(true);
  const anchor = useRef<{ key: string; top: number } | null>(null);
  const [isAway, setAway] = useState(false);

  const note = (): void => {
    const it = box.current;
    if (!it) return;
    const fromEnd = it.scrollHeight - it.scrollTop - it.clientHeight;
    sticks.current = history.follows && fromEnd < AT_END;
    setAway(!sticks.current && (fromEnd > NEAR / 2 || !history.follows));
    const top = it.getBoundingClientRect().top;
    for (const row of it.querySelectorAll<HTMLElement>("[data-key]")) {
      const place = row.getBoundingClientRect();
      if (place.bottom <= top) continue;
      anchor.current = { key: row.dataset["key"]!, top: place.top - top };
      break;
    }
  };
  const toEnd = (): void => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  };
  const read = (): void => {
    const held = client.channel(info.channel);
    if (!held || !sticks.current || document.visibilityState !== "visible") return;
    if (held.unread > 0 || held.readSeq < held.heldTo) void client.markRead(info.channel, held.heldTo).catch(() => {});
  };
  const onScroll = (): void => {
    const it = box.current;
    if (!it) return;
    note();
    if (it.scrollTop < NEAR && !history.isAtStart && history.isLoaded) void history.older();
    if (it.scrollHeight - it.scrollTop - it.clientHeight < NEAR) void history.newer();
    read();
  };

  useLayoutEffect(() => {
    const it = box.current!;
    if (sticks.current) {
      toEnd();
    } else if (anchor.current) {
      const row = it.querySelector<HTMLElement>(`[data-key="${CSS.escape(anchor.current.key)}"]`);
      if (row) it.scrollTop += row.getBoundingClientRect().top - it.getBoundingClientRect().top - anchor.current.top;
    }
    note();
    // A screen that is not full has nothing to scroll: the next page is fetched all the same.
    if (history.isLoaded && !history.isAtStart && history.trouble === null && it.scrollHeight <= it.clientHeight + NEAR) void history.older();
    read();
  }, [version, history]);

  useEffect(() => {
    const it = box.current!;
    const watch = new ResizeObserver(() => sticks.current && toEnd());
    watch.observe(it);
    document.addEventListener("visibilitychange", read);
    return () => {
      watch.disconnect();
      document.removeEventListener("visibilitychange", read);
    };
  }, [info.channel]);

  const jump = (): void => {
    sticks.current = true;
    if (history.follows) toEnd();
    else void history.toEnd();
    box.current?.focus();
  };

  const rows = rowsOf(history.messages, history.follows ? pending : [], client.user, readSeq);
  const isEmpty = history.isLoaded && rows.length === 0;
  return (
    <div class="messages-place">
      <div class="messages" ref={box} onScroll={onScroll} role="log" aria-label="Messages" tabIndex={0}>
        <div class="messages-top">
          {!history.isLoaded && <p role="status">Loading…</p>}
          {history.trouble && (
            <p>
              Older messages are not on this device.{" "}
              <button type="button" class="link" onClick={() => ((history.trouble = null), void history.older())}>Load them</button>
            </p>
          )}
          {history.isLoaded && history.isAtStart && <p>{isEmpty ? "No messages yet. Write the first one." : "This is the beginning."}</p>}
        </div>
        {rows.map((row) => (
          <div key={row.key} data-key={row.key} class={`row row-${row.is}${"first" in row && row.first ? " row-first" : ""}`}>
            {bodyOf(row)}
          </div>
        ))}
      </div>
      {isAway && (
        <button type="button" class="jump" onClick={jump}>
          <Icon name="down" />
          {info.unread > 0 ? `${info.unread} new` : "Newest"}
        </button>
      )}
    </div>
  );

  function bodyOf(row: Row) {
    switch (row.is) {
      case "day":
        return <h3 class="day">{dayName(row.timeMs)}</h3>;
      case "unread":
        return <p class="unread-line">New</p>;
      case "note":
        return <p class="note" dir="auto">{describe(row.message, client.user, people)}</p>;
      case "bubble":
        return <Bubble message={row.message} mine={row.mine} first={row.first} last={row.last} isGroup={info.kind === "group"} />;
      case "pending":
        return <PendingBubble pending={row.pending} last={row.last} />;
    }
  }
}

function Bubble({ message, mine, first, last, isGroup }: { message: Message; mine: boolean; first: boolean; last: boolean; isGroup: boolean }) {
  const { client, people } = useChat();
  const name = people.display(message.author);
  const isText = message.content.is === "text";
  return (
    <article class={`bubble-place${mine ? " mine" : ""}${first ? " first" : ""}${last ? " last" : ""}`}>
      {!mine && isGroup && (last ? <Avatar id={message.author} name={name} /> : <span class="avatar-room" />)}
      <div class="bubble-column">
        {first && isGroup && !mine && <p class="author" dir="auto">{name}</p>}
        <span class="visually-hidden">{mine ? "You" : name} at {timeOfDay(message.timeMs)}: </span>
        <div class={`bubble${isText ? "" : " bubble-other"}`} dir="auto">
          {message.content.is === "text" ? <Text text={message.content.text} /> : describe(message, client.user, people)}
        </div>
        {last && (
          <p class="meta">
            <time dateTime={new Date(message.timeMs).toISOString()} title={exactTime(message.timeMs)}>{timeOfDay(message.timeMs)}</time>
            {mine && <><Icon name="check" /><span class="visually-hidden">Sent</span></>}
          </p>
        )}
      </div>
    </article>
  );
}

/** Text is text: set as such, never as HTML. */
function Text({ text }: { text: string }) {
  const [isFolded, setFolded] = useState(text.length > FOLD_CHARS);
  if (!isFolded) return <>{text}</>;
  return (
    <>
      {text.slice(0, FOLD_CHARS)}…{" "}
      <button type="button" class="link" onClick={() => setFolded(false)}>Show all</button>
    </>
  );
}

function PendingBubble({ pending, last }: { pending: Pending; last: boolean }) {
  const { client } = useChat();
  const isRefused = pending.state === "refused";
  const again = async (): Promise<void> => {
    await client.send(pending.channel as Id, pending.text);
    await client.dismiss(pending.key);
  };
  return (
    <article class={`bubble-place mine${last ? " last" : ""}`}>
      <div class="bubble-column">
        <div class={`bubble bubble-${pending.state}`} dir="auto"><Text text={pending.text} /></div>
        {isRefused ? (
          <p class="meta meta-refused" role="alert">
            <Icon name="alert" />
            {wordsForRefusal(pending.code)}
            <button type="button" class="link" onClick={() => void again().catch(() => {})}>Send again</button>
            <button type="button" class="link" onClick={() => void client.dismiss(pending.key).catch(() => {})}>Discard</button>
          </p>
        ) : (
          <p class="meta">
            <time>{timeOfDay(pending.createdMs)}</time>
            <Icon name={pending.state === "stored" ? "check" : "clock"} />
            <span class="visually-hidden">{pending.state === "stored" ? "Sent" : "Waiting to be sent"}</span>
          </p>
        )}
      </div>
    </article>
  );
}
