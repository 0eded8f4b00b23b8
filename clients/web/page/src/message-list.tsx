/**
 * The messages of one conversation, drawn from a {@link History}, and where the person is in them.
 *
 * It opens at the line above new messages, else at the end. At the end it sticks there; elsewhere the row that is on top stays
 * where it is on the screen, whatever is added or cut above and below it. What was on the screen counts as read.
 */

import { type ChannelInfo, type Message, type OutboxMessage, refusalAdvice } from "@conch/sdk";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { History } from "./history.js";
import { cut } from "./names.js";
import { describe } from "./notes.js";
import { Avatar, Icon, memo } from "./parts.js";
import { type Row, rowsOf } from "./rows.js";
import { useChat } from "./state.js";
import { dayName, exactTime, timeOfDay } from "./time.js";
import { wordsForRefusal } from "./words.js";

/** Pixels from an end at which the next page is fetched. */
const NEAR = 1_600;
/** Pixels from the end that still count as being there. */
const AT_END = 48;
/** Pixels from the end from which on there is a way back. */
const AWAY = 400;
/** Where the line above new messages stands when a conversation is opened. */
const LINE_FROM_TOP = 96;
/** So much of a message has to be on the screen to count as read. */
const SEEN = 12;
/** Reading is told to the node no more often. */
const READ_EVERY_MS = 200;
/** Longer texts are folded. */
const FOLD_CHARS = 2_500;

interface Props {
  info: ChannelInfo;
  history: History;
  pending: OutboxMessage[];
  /** Where the line above new messages goes; null: none. */
  readSeq: number | null;
  /** Goes to the newest message. */
  jump: { current: () => void };
  title: string;
  /** A refused text goes back to where it is written; not offered where one cannot write. */
  onEdit: (text: string) => void;
}

export function MessageList({ info, title, history, pending, readSeq, jump, onEdit }: Props) {
  const { client, people } = useChat();
  const box = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLDivElement>(null);
  /** The line was not gone to yet. */
  const seeksLine = useRef(readSeq !== null);
  const sticks = useRef(readSeq === null);
  const anchor = useRef<{ key: string; top: number; scrolled: number } | null>(null);
  const readTimer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const [isAway, setAway] = useState(false);

  /** Where the list was scrolled to when that was looked at last. */
  const noted = useRef(0);

  // Before this drawing: behind it the browser may have moved what became shorter.
  const scrolledTo = box.current?.scrollTop ?? 0;
  const wasAway = box.current !== null && box.current.scrollHeight - scrolledTo - box.current.clientHeight >= AT_END;

  /** The first row that ends below `y`, by halving: rows stand one below the other. */
  const rowAt = (y: number): HTMLElement | null => {
    const rows = list.current!.children;
    let [from, to] = [0, rows.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      const row = rows[middle] as HTMLElement;
      if (row.offsetTop + row.offsetHeight > y) to = middle;
      else from = middle + 1;
    }
    return (rows[from] as HTMLElement | undefined) ?? null;
  };
  const note = (): void => {
    const it = box.current!;
    const fromEnd = it.scrollHeight - it.scrollTop - it.clientHeight;
    noted.current = it.scrollTop;
    sticks.current = history.follows && fromEnd < AT_END && !seeksLine.current;
    history.isWatchedAtEnd = sticks.current;
    setAway(!sticks.current && !seeksLine.current && (fromEnd > AWAY || !history.follows));
    // The name of a day goes away when more of that day comes above it: messages stay.
    let row = rowAt(it.scrollTop);
    while (row && row.dataset["seq"] === undefined) row = row.nextElementSibling as HTMLElement | null;
    const top = it.getBoundingClientRect().top;
    anchor.current = row && { key: row.dataset["key"]!, top: row.getBoundingClientRect().top - top, scrolled: it.scrollTop };
  };
  const toEnd = (): void => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  };
  /** The newest message that is on the screen. */
  const seenSeq = (): number => {
    const it = box.current!;
    if (sticks.current) return client.channelInfo(info.channel)?.heldTo ?? 0;
    const y = it.scrollTop + it.clientHeight - SEEN;
    let row = rowAt(y) ?? (list.current!.lastElementChild as HTMLElement | null);
    while (row && (row.offsetTop > y || !Number(row.dataset["seq"]))) row = row.previousElementSibling as HTMLElement | null;
    return Number(row?.dataset["seq"] ?? 0);
  };
  const read = (): void => {
    readTimer.current ??= setTimeout(() => {
      readTimer.current = undefined;
      const held = client.channelInfo(info.channel);
      if (!held || !box.current || seeksLine.current || document.visibilityState !== "visible") return;
      const seq = seenSeq();
      if (seq > held.readSeq) void client.markRead(info.channel, seq).catch(() => {});
    }, READ_EVERY_MS);
  };
  const fetchNear = (): void => {
    const it = box.current!;
    if (!history.isLoaded || seeksLine.current) return;
    if (it.scrollTop < NEAR && !history.isAtStart && history.trouble === null) void history.older();
    if (it.scrollHeight - it.scrollTop - it.clientHeight < NEAR) void history.newer();
  };
  const onScroll = (): void => {
    if (!box.current || seeksLine.current) return;
    note();
    fetchNear();
    read();
  };
  jump.current = (): void => {
    seeksLine.current = false;
    sticks.current = true;
    if (history.follows) toEnd();
    else void history.toEnd();
  };

  useLayoutEffect(() => {
    const it = box.current!;
    const at = (key: string): HTMLElement | null => it.querySelector<HTMLElement>(`[data-key="${CSS.escape(key)}"]`);
    const fromTop = (row: HTMLElement): number => row.getBoundingClientRect().top - it.getBoundingClientRect().top;
    if (seeksLine.current && history.isLoaded) {
      seeksLine.current = false;
      const line = at("unread");
      if (line) it.scrollTop += fromTop(line) - LINE_FROM_TOP;
      else toEnd();
    } else if (sticks.current && !(wasAway && scrolledTo < noted.current)) {
      toEnd();
    } else if (anchor.current) {
      const { key, top, scrolled } = anchor.current;
      const row = at(key);
      // A scroll that nobody heard of yet is the person's: it stays, also away from the end.
      if (row) it.scrollTop += fromTop(row) - (top - (scrolledTo - scrolled));
    }
    note();
    fetchNear();
    read();
    // After every drawing, whatever it was for: rows that came in between must not be taken for the person's scrolling.
  });

  useEffect(() => {
    const it = box.current!;
    const watch = new ResizeObserver(() => sticks.current && toEnd());
    watch.observe(it);
    document.addEventListener("visibilitychange", read);
    return () => {
      watch.disconnect();
      document.removeEventListener("visibilitychange", read);
      clearTimeout(readTimer.current);
    };
  }, [info.channel]);

  // A window that begins above the line has none.
  const lineSeq = readSeq !== null && history.first <= Math.max(readSeq + 1, info.firstSeq) ? readSeq : null;
  const rows = rowsOf(history.messages, history.follows ? pending : [], client.user, lineSeq);
  const isEmpty = history.isLoaded && rows.length === 0;
  return (
    <div class="messages-place">
      <div
        class="messages" ref={box} onScroll={onScroll} role="log" aria-live="off" aria-label="Messages" tabIndex={0}
        onKeyDown={(event) => {
          if (event.key !== "End" || event.target !== box.current) return;
          event.preventDefault();
          jump.current();
        }}
      >
        <div class="messages-inner">
          <div class="messages-top">
            {!history.isLoaded && <p role="status">Loading…</p>}
            {history.trouble && (
              <p>
                {history.trouble === "offline" ? "Older messages are not on this device." : "The server does not give out older messages now."}{" "}
                <button type="button" class="link" onClick={() => ((history.trouble = null), void history.older())}>Load them</button>
              </p>
            )}
            {history.isLoaded && history.isAtStart && !isEmpty && <p>This is the beginning.</p>}
          </div>
          {isEmpty && history.isAtStart && (
            <div class="empty">
              <Avatar id={info.peer ?? info.channel} name={title} group={info.kind === "group"} />
              <p>{info.kind === "self" ? "Notes that only you see, on all your devices." : "No messages yet. Write the first one."}</p>
            </div>
          )}
          <div class="messages-rows" ref={list}>
            {rows.map((row) => (
              <div key={row.key} data-key={row.key} data-seq={seqOf(row)} class={`row row-${row.is}${"first" in row && row.first ? " row-first" : ""}`}>
                {bodyOf(row)}
              </div>
            ))}
          </div>
        </div>
      </div>
      {isAway && (
        <button type="button" class="jump" onClick={() => (jump.current(), box.current?.focus())}>
          <Icon name="down" />
          {info.unread > 0 ? `${info.unread.toLocaleString()} new` : "Newest"}
        </button>
      )}
    </div>
  );

  function bodyOf(row: Row) {
    switch (row.is) {
      case "day":
        return <h3 class="day"><Day timeMs={row.timeMs} today={new Date().toDateString()} /></h3>;
      case "unread":
        return <p class="unread-line">New messages</p>;
      case "note":
        return <p class="note" dir="auto">{describe(row.message, client.user, people)}</p>;
      case "bubble": {
        const { message, mine, first, last } = row;
        const isGroup = info.kind === "group";
        const note = message.content.is === "text" ? "" : describe(message, client.user, people);
        return <Bubble message={message} mine={mine} first={first} last={last} name={people.display(message.author)} isGroup={isGroup} note={note} />;
      }
      case "pending":
        return <PendingBubble pending={row.pending} last={row.last} onEdit={info.left ? null : onEdit} />;
    }
  }
}

/** Rows that can be told again when they are drawn anew; one on its way has a place, but no number yet. */
function seqOf(row: Row): number | undefined {
  if (row.is === "bubble" || row.is === "note") return row.message.seq;
  return row.is === "pending" ? 0 : undefined;
}

const Day = memo(({ timeMs }: { timeMs: number; today: string }) => dayName(timeMs));

interface BubbleProps {
  message: Message;
  mine: boolean;
  first: boolean;
  last: boolean;
  /** Of its author. */
  name: string;
  isGroup: boolean;
  /** What stands there instead of a text. */
  note: string;
}

const Bubble = memo(({ message, mine, first, last, name, isGroup, note }: BubbleProps) => (
  <article class={`bubble-place${mine ? " mine" : ""}${first ? " first" : ""}${last ? " last" : ""}`}>
    {!mine && isGroup && (last ? <Avatar id={message.author} name={name} /> : <span class="avatar-room" />)}
    <div class="bubble-column">
      {first && isGroup && !mine && <p class="author" dir="auto" aria-hidden="true">{name}</p>}
      <span class="visually-hidden">{mine ? "You" : name} at {timeOfDay(message.timeMs)}: </span>
      <div class={`bubble${note ? " bubble-other" : ""}`} dir="auto">{message.content.is === "text" ? <Text text={message.content.text} /> : note}</div>
      {last && (
        <p class="meta">
          <time dateTime={new Date(message.timeMs).toISOString()} title={exactTime(message.timeMs)}>{timeOfDay(message.timeMs)}</time>
          {mine && <><Icon name="check" /><span class="visually-hidden">Sent</span></>}
        </p>
      )}
    </div>
  </article>
));

/** Text is text: set as such, never as HTML. */
function Text({ text }: { text: string }) {
  const [isFolded, setFolded] = useState(text.length > FOLD_CHARS);
  if (!isFolded) return <>{text}</>;
  return (
    <>
      {cut(text, FOLD_CHARS)}…{" "}
      <button type="button" class="link" onClick={() => setFolded(false)}>Show all</button>
    </>
  );
}

/** A clock until the node has it. Only what waits is paler: what is sent at once would flicker. */
const SENDING_WORDS = { waiting: "Waiting to be sent", sending: "Sending", sent: "Sent", refused: "Not sent" };

function PendingBubble({ pending, last, onEdit }: { pending: OutboxMessage; last: boolean; onEdit: ((text: string) => void) | null }) {
  const { client } = useChat();
  const isRefused = pending.state === "refused";
  const cancel = (): Promise<void> => client.cancel(pending.key).catch(() => {});
  // What is not taken as it is will not be taken as it is again; and where one cannot write, nothing is.
  const mayRepeat = onEdit !== null && (pending.code === null || refusalAdvice(pending.code) !== "edit");
  return (
    <article class={`bubble-place mine${last || isRefused ? " last" : ""}`}>
      <div class="bubble-column">
        <div class={`bubble bubble-${pending.state}`} dir="auto"><Text text={pending.text} /></div>
        {isRefused ? (
          <p class="meta meta-refused" role="alert">
            <span><Icon name="alert" /> {wordsForRefusal(pending.code)}</span>
            {mayRepeat && <button type="button" class="link" onClick={() => void client.retry(pending.key).catch(() => {})}>Send again</button>}
            {onEdit && <button type="button" class="link" onClick={() => (onEdit(pending.text), void cancel())}>Edit</button>}
            <button type="button" class="link" onClick={() => void cancel()}>Discard</button>
          </p>
        ) : (
          <p class="meta">
            <time>{timeOfDay(pending.createdMs)}</time>
            <Icon name={pending.state === "sent" ? "check" : "clock"} />
            <span class="visually-hidden">{SENDING_WORDS[pending.state]}</span>
          </p>
        )}
      </div>
    </article>
  );
}
