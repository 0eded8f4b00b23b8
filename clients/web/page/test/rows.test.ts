/** Rows and names: pure halves of the page. */

import type { Content, Message, OutboxMessage } from "@conch/sdk";
import { describe, expect, it } from "vitest";
import { clean, cut, initials } from "../src/names.js";
import { rowsOf } from "../src/rows.js";
import { brief, dayName } from "../src/time.js";

const NOON = new Date(2026, 10, 21, 12, 0).getTime();
const say = (seq: number, author: string, timeMs: number, content: Content = { is: "text", text: `${seq}`, mentions: [] }): Message => ({
  channel: "1", seq, author, timeMs, key: null, content,
});
const shape = (messages: Message[], pending: OutboxMessage[] = [], readSeq: number | null = null): string =>
  rowsOf(messages, pending, "me", readSeq)
    .map((row) => (row.is === "bubble" ? `${row.first ? "(" : ""}${row.message.seq}${row.last ? ")" : ""}` : row.is))
    .join(" ");

describe("rows", () => {
  it("bubbles of one author within five minutes are one group", () => {
    const rows = [say(1, "a", NOON), say(2, "a", NOON + 60_000), say(3, "b", NOON + 61_000), say(4, "b", NOON + 400_000)];
    expect(shape(rows)).toBe("day (1 2) (3) (4)");
  });

  it("a day begins with its name, and no group goes over midnight", () => {
    const late = new Date(2026, 10, 20, 23, 59).getTime();
    expect(shape([say(1, "a", late), say(2, "a", late + 120_000)])).toBe("day (1) day (2)");
  });

  it("the line above new messages stands once, before the first of somebody else", () => {
    const rows = [say(5, "a", NOON), say(6, "me", NOON + 1), say(7, "a", NOON + 2), say(8, "a", NOON + 3)];
    expect(shape(rows, [], 5)).toBe("day (5) (6) unread (7 8)");
  });

  it("changes of the conversation part groups", () => {
    const left: Content = { is: "member-left", members: [] };
    expect(shape([say(1, "a", NOON), say(2, "a", NOON, left), say(3, "a", NOON)])).toBe("day (1) note (3)");
  });

  it("the first event of two people's conversation is no line; that of a group is", () => {
    const made = (title: string): Content => ({ is: "created", title, members: [] });
    expect([shape([say(1, "a", NOON, made(""))]), shape([say(1, "a", NOON, made("")), say(2, "a", NOON)])]).toEqual(["", "day (2)"]);
    expect(shape([say(1, "a", NOON, made("Harbour"))])).toBe("day note");
  });

  it("an own message keeps its key when it gets its place", () => {
    const pending: OutboxMessage = { channel: "1", key: "k", text: "x", createdMs: NOON, after: 9, state: "waiting", code: null };
    const before = rowsOf([], [pending], "me", null).at(-1)!;
    const after = rowsOf([{ ...say(1, "me", NOON), key: "k" }], [], "me", null).at(-1)!;
    expect(after.key).toBe(before.key);
  });
});

describe("names", () => {
  it("controls, marks of direction and towers of marks do not reach the screen", () => {
    expect(clean("\u202Eevil\u202C\u0007", "x")).toBe("evil");
    expect([...clean(`a${"\u0301".repeat(10_000)}`, "x")].length).toBeLessThan(5);
    expect(clean(" \u200f\u202e ", "ada")).toBe("ada");
    expect([...clean("é".repeat(200), "x")]).toHaveLength(64);
    expect([clean("a\n\nb", "x"), clean("a\u2028b\tc", "x")]).toEqual(["a b", "a b c"]);
    for (const blank of ["\u3164", "\u2800 \u2800", "\u200b\u200d", "\u0301\u0302", "\u{e0020}"]) expect(clean(blank, "ada")).toBe("ada");
    expect(clean("👩\u200d🚀 e\u0301", "x")).toBe("👩\u200d🚀 e\u0301");
    expect(clean("x".repeat(1_000_000), "y", 300)).toHaveLength(300);
  });

  it("a text is cut between characters", () => {
    expect([cut("a🐚b", 2), cut("a🐚b", 3), cut("ab", 5)]).toEqual(["a", "a🐚", "ab"]);
  });

  it("initials of one and of several words", () => {
    expect([initials("Ada Lovelace"), initials("grace"), initials("王小明")]).toEqual(["AL", "G", "王"]);
  });
});

describe("time", () => {
  it("days by their distance", () => {
    expect(dayName(NOON - 1, NOON)).toMatch(/today/i);
    expect(dayName(NOON - 86_400_000, NOON)).toMatch(/yesterday/i);
    expect(brief(NOON, NOON)).toMatch(/12/);
  });
});
