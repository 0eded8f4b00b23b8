/**
 * A list that loads as it is scrolled and does not jump.
 *
 * What the person looks at stays where it is on the screen, whatever is put above or cut away: the first row in view is
 * remembered whenever the list is scrolled or drawn, and put back in its place after the next drawing. At the newest end the
 * list follows what comes instead.
 */

import { type RefCallback, useCallback, useEffect, useLayoutEffect, useRef } from "react";
import type { Messages } from "./messages.js";

/** Pixels from an end at which more is loaded. */
const NEAR = 600;
/** Pixels from the bottom within which the person is taken to be at it. */
const AT_END = 40;

/** What {@link useInfiniteScroll} gives. */
export interface InfiniteScroll {
  /** For the element that scrolls. Rows in it carry `data-seq`. */
  ref: RefCallback<HTMLElement>;
  /** Goes to the newest message. */
  toNewest(): Promise<void>;
}

const rows = (box: HTMLElement): HTMLElement[] => [...box.querySelectorAll<HTMLElement>("[data-seq]")];
const topIn = (box: HTMLElement, row: HTMLElement): number => row.getBoundingClientRect().top - box.getBoundingClientRect().top;

/** Makes an element scroll through {@link useMessages}: give it `ref`, and each row `data-seq={message.seq}`. */
export function useInfiniteScroll(messages: Messages): InfiniteScroll {
  const box = useRef<HTMLElement | null>(null);
  const anchor = useRef<{ seq: string; top: number } | null>(null);
  const isAtEnd = useRef(true);
  const latest = useRef(messages);
  /** Where it was scrolled to when that was looked at last. */
  const noted = useRef(0);
  // Before this drawing: what differs from that is the person's scrolling, of which no event has told yet.
  const scrolledTo = box.current?.scrollTop ?? 0;

  /** Remembers what is in view, and loads where it ends. */
  const look = useCallback((): void => {
    const it = box.current;
    if (!it) return;
    const { hasOlder, hasNewer, loading, trouble } = latest.current;
    const below = it.scrollHeight - it.scrollTop - it.clientHeight;
    noted.current = it.scrollTop;
    isAtEnd.current = !hasNewer && below <= AT_END;
    const first = rows(it).find((row) => topIn(it, row) + row.offsetHeight > 0);
    anchor.current = first ? { seq: first.dataset["seq"]!, top: topIn(it, first) } : null;
    if (loading) return;
    if (hasOlder && !trouble && it.scrollTop < NEAR) void latest.current.loadOlder();
    else if (hasNewer && below < NEAR) void latest.current.loadNewer();
  }, []);

  useLayoutEffect(() => {
    latest.current = messages;
    const it = box.current;
    if (!it) return;
    const { seq, top } = anchor.current ?? {};
    const unheard = scrolledTo - noted.current;
    const hasLeft = unheard < 0 && it.scrollHeight - it.scrollTop - it.clientHeight > AT_END;
    const row = isAtEnd.current && !hasLeft ? undefined : rows(it).find((one) => one.dataset["seq"] === seq);
    if (row && top !== undefined) it.scrollTop += topIn(it, row) - (top - unheard);
    else if (isAtEnd.current && !hasLeft && !messages.hasNewer) it.scrollTop = it.scrollHeight;
    look();
  });

  const ref = useCallback(
    (element: HTMLElement | null): void => {
      box.current?.removeEventListener("scroll", look);
      box.current = element;
      if (!element) return;
      // The browser's own anchoring does not work at the very top, and would be added to this one.
      element.style.overflowAnchor = "none";
      element.addEventListener("scroll", look, { passive: true });
    },
    [look],
  );

  // What is drawn without a message that changed: images that come, another width.
  useEffect(() => {
    const it = box.current;
    if (!it || typeof ResizeObserver !== "function") return;
    const observer = new ResizeObserver(() => {
      if (isAtEnd.current) it.scrollTop = it.scrollHeight;
    });
    observer.observe(it);
    return () => observer.disconnect();
  }, []);

  const toNewest = useCallback(async (): Promise<void> => {
    isAtEnd.current = true;
    anchor.current = null;
    if (latest.current.hasNewer) await latest.current.toNewest();
    const it = box.current;
    if (it) it.scrollTop = it.scrollHeight;
    // At once, and not with the browser's word of it: what is scrolled from here on is the person's.
    look();
  }, [look]);

  return { ref, toNewest };
}
