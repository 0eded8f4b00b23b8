/** The store over IndexedDB: all steps or none, and pages of a log. */

import "fake-indexeddb/auto";
import { describe, expect, it, vi } from "vitest";
import { type Store, deleteStore, openStore } from "../src/browser/store.js";
import type { OutboxItem } from "../src/core/outbox.js";
import { type ChannelRow, type MessageRow, type Persist, emptyMeta } from "../src/core/persist.js";

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
    await store.apply([{ remove: "older-messages", channel: "9", below: 299 }]);
    expect([await seqs(Infinity, 10), await seqs(299, 10)]).toEqual([[299, 300], []]);
    expect(await store.messages("8", Infinity, 10)).toHaveLength(1);
  });

  it("outbox and meta come back, the outbox outlives what was received", async () => {
    const store = await openStore("outbox");
    const item = (id: number) => ({ id, channel: "1", key: `${id}`.padStart(32, "0"), kind: 1, flags: 0, tail: Uint8Array.of(1), createdMs: 0 });
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

  /** Without IndexedDB, and with it. */
  const stores = async (): Promise<Store[]> => {
    const real = globalThis.indexedDB;
    Object.defineProperty(globalThis, "indexedDB", { value: undefined, configurable: true, writable: true });
    const memory = await openStore("members");
    globalThis.indexedDB = real;
    return [await openStore("members"), memory];
  };

  it("who is in a channel: a whole list, who came and went since, names of any list; nobody without a list", async () => {
    for (const store of await stores()) {
      const known = async (channel: string) => (await store.members!(channel)).sort((a, b) => a.joinedSeq - b.joinedSeq);
      const ada = { user: "1", role: "owner" as const, joinedSeq: 1, handle: "ada", displayName: "Ada" };
      const grace = { user: "2", role: "member" as const, joinedSeq: 4, handle: "grace", displayName: "Grace" };
      const came = (channel: string, user: string, joinedSeq: number): Persist => ({
        put: "members", channel, isAll: false, members: [{ user, role: "member", joinedSeq }],
      });
      await store.apply([came("9", "7", 3), came("9", "8", 4)]);
      expect(await known("9")).toEqual([]);
      await store.apply([{ put: "members", channel: "9", isAll: true, members: [ada, grace] }, { put: "members", channel: "90", isAll: true, members: [] }]);
      expect(await known("9")).toEqual([ada, grace]);
      await store.apply([came("9", "3", 5), { remove: "members", channel: "9", users: ["2"] }, came("90", "2", 6)]);
      expect(await known("9")).toEqual([ada, { user: "3", role: "member", joinedSeq: 5 }]);
      // Names are those of the person, by whatever channel they came.
      expect(await known("90")).toEqual([{ ...grace, joinedSeq: 6 }]);
      await store.apply([{ remove: "messages", channel: "9" }, { remove: "channel", channel: "90" }]);
      expect([(await known("9")).length, await known("90")]).toEqual([2, []]);
      await store.apply([{ remove: "everything-received" }]);
      expect(await known("9")).toEqual([]);
      store.close();
    }
  });

  it("members lie beside what versions before this one know, and what is damaged of them is nobody", async () => {
    const store = await openStore("beside");
    const meta = { ...emptyMeta(), user: "7" };
    await store.apply([{ put: "meta", meta }, { put: "members", channel: "9", isAll: true, members: [{ user: "1", role: "owner", joinedSeq: 1 }] }]);
    const { database } = store as unknown as { database: IDBDatabase };
    expect([database.version, [...database.objectStoreNames]]).toEqual([1, ["channels", "messages", "meta", "outbox"]]);
    const write = database.transaction("meta", "readwrite");
    write.objectStore("meta").put("nonsense", ["member", "9", "2"]);
    write.objectStore("meta").put({ user: "1", handle: 5 }, ["person", "1"]);
    await new Promise((resolve) => (write.oncomplete = resolve));
    expect(await store.members!("9")).toEqual([{ user: "1", role: "owner", joinedSeq: 1 }]);
    expect((await store.load()).meta).toEqual(meta);
  });

  it("rows of before, without a newest message or a place among the others, are read; with nonsense there they are not", async () => {
    const store = await openStore("rows");
    const row = { channel: "1", marks: {}, firstSeq: 1, base: 1, have: 0, head: 0, used: 1 } as unknown as ChannelRow;
    const item = { id: 3, channel: "1", key: "3".repeat(32), kind: 1, flags: 0, tail: Uint8Array.of(1), createdMs: 0 };
    await store.apply([{ put: "channel", row }, { put: "channel", row: { ...row, channel: "2", last: null } }, { put: "outbox", item }]);
    expect((await store.load()).rebuilt).toBe(undefined);
    await store.apply([{ put: "channel", row: { ...row, last: { seq: "1" } } as unknown as ChannelRow }]);
    expect((await store.load()).rebuilt).toEqual({ unsentKept: 1, unsentLost: 0 });
    await store.apply([{ put: "outbox", item: { ...item, id: 4, after: "2" } as unknown as OutboxItem }]);
    expect((await store.load()).rebuilt).toEqual({ unsentKept: 1, unsentLost: 1 });
  });

  it("where the browser refuses to open a database, later too, a tab remembers for itself, and nothing is removed", async () => {
    const refused = vi.spyOn(indexedDB, "open").mockImplementation(() => {
      const request = { error: new DOMException("private mode", "InvalidStateError") } as unknown as IDBOpenDBRequest;
      setTimeout(() => request.onerror?.(new Event("error")));
      return request;
    });
    const removed = vi.spyOn(indexedDB, "deleteDatabase");
    const store = await openStore("private");
    expect([store.isPersistent, store.whyMemory, removed.mock.calls.length]).toEqual([false, "denied", 0]);
    refused.mockRestore();
    removed.mockRestore();
  });

  it("what cannot be read is emptied; unsent messages that can be read stay, and who it belongs to", async () => {
    const store = await openStore("damaged");
    const item = { id: 3, channel: "1", key: "3".repeat(32), kind: 1, flags: 0, tail: Uint8Array.of(1), createdMs: 0 };
    await store.apply([
      { put: "meta", meta: { ...emptyMeta(), user: "7", session: "8", generation: 5, syncToken: Uint8Array.of(1) } },
      { put: "outbox", item },
      { put: "outbox", item: { id: 4, channel: "1" } as unknown as OutboxItem },
      { put: "channel", row: { channel: "1", nonsense: true } as unknown as ChannelRow },
      put("1", 1),
    ]);
    expect(await store.load()).toEqual({
      meta: { ...emptyMeta(), user: "7", session: "8" }, channels: [], outbox: [item], rebuilt: { unsentKept: 1, unsentLost: 1 },
    });
    expect(await store.messages("1", Infinity, 5)).toEqual([]);
    expect(await store.load()).toEqual({ meta: { ...emptyMeta(), user: "7", session: "8" }, channels: [], outbox: [item] });
  });

  it("a database of a newer version is left as it is, and the tab says why it remembers for itself", async () => {
    const open = indexedDB.open("newer", 99);
    const newer = await new Promise<IDBDatabase>((resolve) => {
      open.onupgradeneeded = () => open.result.createObjectStore("other").put("kept", "it");
      open.onsuccess = () => resolve(open.result);
    });
    const store = await openStore("newer");
    expect([store.isPersistent, store.whyMemory]).toEqual([false, "newer"]);
    const get = newer.transaction("other").objectStore("other").get("it");
    expect(await new Promise((resolve) => (get.onsuccess = () => resolve(get.result)))).toBe("kept");
    newer.close();
  });

  it("one that the browser closed is opened again with the next load", async () => {
    const store = await openStore("closed");
    await store.apply([put("1", 1)]);
    const { database } = store as unknown as { database: IDBDatabase };
    database.close();
    database.onclose!(new Event("close"));
    await expect(store.apply([put("1", 2)])).rejects.toBeDefined();
    await store.load();
    await store.apply([put("1", 2)]);
    expect(await store.messages("1", Infinity, 5)).toHaveLength(2);
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
    expect([store.isPersistent, store.whyMemory]).toEqual([false, "denied"]);
    await store.apply([put("1", 1), put("1", 2)]);
    expect((await store.messages("1", 2, 5)).map((it) => it.event.seq)).toEqual([1]);
  });
});
