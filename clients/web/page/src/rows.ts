/**
 * Messages as rows to draw: days, groups of bubbles by one author, lines about the conversation. Pure.
 *
 * Every row has a key that stays with its message, so that drawing again moves nothing.
 */

import type { Id, Message, OutboxMessage } from "@conch/sdk";
import { dayOf } from "./time.js";

/** Bubbles of one author within this time are one group. */
const GROUP_MS = 5 * 60_000;

export type Row =
  | { is: "day"; key: string; timeMs: number }
  | { is: "unread"; key: string }
  | { is: "note"; key: string; message: Message }
  | { is: "bubble"; key: string; message: Message; mine: boolean; first: boolean; last: boolean }
  | { is: "pending"; key: string; pending: OutboxMessage; first: boolean; last: boolean };

const isBubble = (message: Message): boolean =>
  message.content.is === "text" || message.content.is === "payload" || (message.content.is === "unknown" && message.content.kind < 16);

/** A conversation's first event where it says nothing that its head does not: one of two people, and one's own notes. */
export const isBare = ({ content }: Message): boolean => content.is === "created" && content.title === "";

const joins = (a: Message, b: Message): boolean =>
  isBubble(a) && isBubble(b) && a.author === b.author && b.timeMs - a.timeMs < GROUP_MS && dayOf(a.timeMs) === dayOf(b.timeMs);

/**
 * Rows of `messages` (ascending), then of what is on its way. `readSeq` is where the line above new messages goes; null: none.
 */
export function rowsOf(messages: Message[], pending: OutboxMessage[], me: Id, readSeq: number | null): Row[] {
  const rows: Row[] = [];
  let marked = readSeq === null;
  const shown = messages.filter((it) => !isBare(it));
  shown.forEach((message, i) => {
    const before = shown[i - 1];
    const after = shown[i + 1];
    if (!before || dayOf(before.timeMs) !== dayOf(message.timeMs)) rows.push({ is: "day", key: `d${message.seq}`, timeMs: message.timeMs });
    const mine = message.author === me;
    const isNew: boolean = !marked && message.seq > readSeq! && !mine && isBubble(message);
    if (isNew) {
      marked = true;
      rows.push({ is: "unread", key: "unread" });
    }
    if (!isBubble(message)) {
      rows.push({ is: "note", key: `m${message.seq}`, message });
      return;
    }
    const first = isNew || !before || !joins(before, message);
    const nextIsNew = !marked && after !== undefined && after.seq > readSeq! && after.author !== me;
    const last = nextIsNew || !after || !joins(message, after);
    // Own messages keep the key under which they were drawn while on their way.
    rows.push({ is: "bubble", key: message.key ?? `m${message.seq}`, message, mine, first, last });
  });
  pending.forEach((it, i) => {
    rows.push({ is: "pending", key: it.key, pending: it, first: i === 0, last: i === pending.length - 1 });
  });
  return rows;
}
