/** The store over IndexedDB: all steps or none, and pages of a log. */

import "fake-indexeddb/auto";
import { describe, expect, it } from "vitest";
import { deleteStore, openStore } from "../src/browser/store.js";
import type { MessageRow, Persist } from "../src/core/persist.js";

const message = (channel: string, seq: number): MessageRow => ({
  channel,
  event: { author: "1", seq, timeMs: seq, kind: 1, flags: 0, tail: Uint8Array.of(seq & 255) },
  key: null,
});
const put = (channel: string, seq: number): Persist => ({ put: "message", row: message(channel, seq) });

describe("store", () => {
  it("gives out pages of one channel's log, newest or below a seq", async () => {
    const store = await openStore("pages");
    expect(store.isPersistent).toBe(true);
    await store.apply([...Array.from({ length: 300 }, (_, i) => put("9", i + 1)), put("8", 5), put("90", 7)]);
    const seqs = async (before: number, limit: number) => (await store.messages("9", before, limit)).map((it) => it.event.seq);
    expect(await seqs(Infinity, 3)).toEqual([298, 299, 300]);
    expect(await seqs(298, 3)).toEqual([295, 296, 297]);
    expect(await seqs(3, 10)).toEqual([1, 2]);
    expect(await seqs(1, 10)).toEqual([]);
    expect(await store.messages("7", Infinity, 10)).toEqual([]);
  });

  it("outbox and meta come back, the outbox outlives what was received", async () => {
    const store = await openStore("outbox");
    const item = (id: number) => ({ id, channel: "1", key: `k${id}`, kind: 1, flags: 0, tail: Uint8Array.of(1), createdMs: 0 });
    await store.apply([{ put: "outbox", item: item(10) }, { put: "outbox", item: item(9) }, put("1", 1)]);
    await store.apply([{ remove: "everything-received" }, { remove: "outbox", id: 10 }, { put: "outbox", item: item(11) }]);
    store.close();
    const again = await openStore("outbox");
    expect((await again.load()).outbox.map((it) => it.id)).toEqual([9, 11]);
    expect(await again.messages("1", Infinity, 5)).toEqual([]);
    again.close();
    await deleteStore("outbox");
    expect((await (await openStore("outbox")).load()).outbox).toEqual([]);
  });

  it("a step that cannot be stored takes the whole batch with it", async () => {
    const store = await openStore("whole");
    await store.apply([put("1", 1)]);
    // No key, so IndexedDB refuses it.
    const bad = { put: "outbox", item: {} } as unknown as Persist;
    await expect(store.apply([put("1", 2), bad])).rejects.toBeDefined();
    expect(await store.messages("1", Infinity, 5)).toHaveLength(1);
  });

  it("without IndexedDB a tab remembers for itself, and says so", async () => {
    const real = globalThis.indexedDB;
    Object.defineProperty(globalThis, "indexedDB", { get: () => { throw new Error("denied"); }, configurable: true });
    const store = await openStore("denied");
    Object.defineProperty(globalThis, "indexedDB", { value: real, configurable: true, writable: true });
    expect(store.isPersistent).toBe(false);
    await store.apply([put("1", 1), put("1", 2)]);
    expect((await store.messages("1", 2, 5)).map((it) => it.event.seq)).toEqual([1]);
  });
});
