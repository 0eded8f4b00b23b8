/**
 * What a device remembers, in IndexedDB; or in memory where that is denied, and then for as long as the tab lives.
 *
 * `apply` is one transaction: all of its steps or none. Rows are those of `core/persist.ts`. Only the leader among the tabs
 * writes; all tabs read. The outbox is written with strict durability: what a person was told is kept survives a power cut.
 */

import { type Loaded, type MessageRow, type Persist, emptyMeta } from "../core/persist.js";
import type { Id } from "../wire/values.js";

export interface Store {
  /** Whether it survives the tab. */
  readonly isPersistent: boolean;
  load(): Promise<Loaded>;
  apply(steps: Persist[]): Promise<void>;
  /** Up to `limit` events below `before`, ascending; without it the newest. */
  messages(channel: Id, before: number, limit: number): Promise<MessageRow[]>;
  close(): void;
}

const VERSION = 1;
const LAST_SEQ = 0xffff_ffff;

type MessageRecord = MessageRow & { seq: number };

function done(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("the transaction was aborted"));
  });
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

const ofChannel = (channel: Id): IDBKeyRange => IDBKeyRange.bound([channel, 0], [channel, LAST_SEQ]);

class DatabaseStore implements Store {
  readonly isPersistent = true;

  constructor(private readonly database: IDBDatabase) {}

  async load(): Promise<Loaded> {
    const transaction = this.database.transaction(["meta", "channels", "outbox"]);
    const [meta, channels, outbox] = await Promise.all([
      result(transaction.objectStore("meta").get("meta")),
      result(transaction.objectStore("channels").getAll()),
      result(transaction.objectStore("outbox").getAll()),
    ]);
    return { meta: meta ?? emptyMeta(), channels, outbox };
  }

  async apply(steps: Persist[]): Promise<void> {
    const isOutbox = steps.some((step) => "put" in step && step.put === "outbox");
    const transaction = this.database.transaction(["meta", "channels", "messages", "outbox"], "readwrite", {
      durability: isOutbox ? "strict" : "relaxed",
    });
    const ended = done(transaction);
    try {
      const [meta, channels, messages, outbox] = ["meta", "channels", "messages", "outbox"].map((name) => transaction.objectStore(name));
      for (const step of steps) {
        if ("put" in step) {
          if (step.put === "meta") meta!.put(step.meta, "meta");
          else if (step.put === "channel") channels!.put(step.row);
          else if (step.put === "outbox") outbox!.put(step.item);
          else messages!.put({ ...step.row, seq: step.row.event.seq } satisfies MessageRecord);
        } else if (step.remove === "outbox") {
          outbox!.delete(step.id);
        } else if (step.remove === "everything-received") {
          channels!.clear();
          messages!.clear();
        } else {
          if (step.remove === "channel") channels!.delete(step.channel);
          messages!.delete(ofChannel(step.channel));
        }
      }
    } catch (error) {
      // What was put before must not stand alone.
      ended.catch(() => {});
      transaction.abort();
      throw error;
    }
    await ended;
  }

  async messages(channel: Id, before: number, limit: number): Promise<MessageRow[]> {
    if (before <= 1 || limit <= 0) return [];
    const messages = this.database.transaction("messages").objectStore("messages");
    const last = before > LAST_SEQ ? LAST_SEQ : before - 1;
    if (before <= LAST_SEQ) {
      // Logs have no gaps: the rows wanted lie next to each other.
      return result(messages.getAll(IDBKeyRange.bound([channel, Math.max(last - limit + 1, 0)], [channel, last])));
    }
    const newest = await result(messages.openKeyCursor(ofChannel(channel), "prev"));
    if (!newest) return [];
    const seq = (newest.key as [Id, number])[1];
    return this.messages(channel, seq + 1, limit);
  }

  close(): void {
    this.database.close();
  }
}

class MemoryStore implements Store {
  readonly isPersistent = false;
  private readonly rows = new Map<Id, Map<number, MessageRow>>();

  load(): Promise<Loaded> {
    return Promise.resolve({ meta: emptyMeta(), channels: [], outbox: [] });
  }

  apply(steps: Persist[]): Promise<void> {
    for (const step of steps) {
      if ("put" in step && step.put === "message") {
        const { channel, event } = step.row;
        if (!this.rows.has(channel)) this.rows.set(channel, new Map());
        this.rows.get(channel)!.set(event.seq, step.row);
      } else if ("remove" in step && step.remove === "everything-received") {
        this.rows.clear();
      } else if ("remove" in step && step.remove !== "outbox") {
        this.rows.delete(step.channel);
      }
    }
    return Promise.resolve();
  }

  messages(channel: Id, before: number, limit: number): Promise<MessageRow[]> {
    const rows = [...(this.rows.get(channel)?.values() ?? [])].filter((row) => row.event.seq < before);
    rows.sort((a, b) => a.event.seq - b.event.seq);
    return Promise.resolve(limit > 0 ? rows.slice(-limit) : []);
  }

  close(): void {}
}

/** Opens the database of this name; in memory if the browser denies one. */
export async function openStore(name: string): Promise<Store> {
  try {
    const request = indexedDB.open(name, VERSION);
    request.onupgradeneeded = () => {
      const database = request.result;
      database.createObjectStore("meta");
      database.createObjectStore("channels", { keyPath: "channel" });
      database.createObjectStore("messages", { keyPath: ["channel", "seq"] });
      database.createObjectStore("outbox", { keyPath: "id" });
    };
    const database = await result(request);
    // Log-out in another tab deletes the database: let it.
    database.onversionchange = () => database.close();
    return new DatabaseStore(database);
  } catch {
    return new MemoryStore();
  }
}

export async function deleteStore(name: string): Promise<void> {
  try {
    await result(indexedDB.deleteDatabase(name));
  } catch {
    // Nothing can be stored here, so nothing is there.
  }
}
