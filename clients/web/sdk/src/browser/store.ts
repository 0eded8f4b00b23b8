/**
 * What a device remembers, in IndexedDB; or in memory where that is denied, and then for as long as the tab lives.
 *
 * `apply` is one transaction: all of its steps or none. Rows are those of `core/persist.ts`. Only the leader among the tabs
 * writes; all tabs read. The outbox is written with strict durability: what a person was told is kept survives a power cut.
 *
 * A database that cannot be read is emptied and filled again from the node; unsent messages that can be read stay. (A browser
 * has no way to set one aside under another name.) One that cannot be opened is left alone: it may open the next time.
 */

import { type ChannelRow, type Loaded, type MemberRow, type MessageRow, type Meta, type Persist, emptyMeta } from "../core/persist.js";
import type { OutboxItem } from "../core/outbox.js";
import type { Id } from "../wire/values.js";

/**
 * What a device remembers. {@link openStore} gives the browser's; an application elsewhere (Node, a native shell) may bring its
 * own, which must keep the promises of each method, because the delivery promise rests on them.
 */
export interface Store {
  /** Whether it outlives the tab, and is shared by all tabs. */
  readonly isPersistent: boolean;
  /** Why it does not: storage is denied (private mode), or what is there is of a newer version of this package. */
  readonly whyMemory?: "denied" | "newer";
  /** Everything but messages. Called when a tab becomes the one that writes, and again after a failure. */
  load(): Promise<Loaded>;
  /** Carries out all steps, in their order, or none; resolves when they are durable. */
  apply(steps: Persist[]): Promise<void>;
  /** Up to `limit` events below `before`, ascending; without it the newest. */
  messages(channel: Id, before: number, limit: number): Promise<MessageRow[]>;
  /** Who is in a channel, in any order; nobody before a step said who all are. Without this, nobody is known. */
  members?(channel: Id): Promise<MemberRow[]>;
  /** Lets go of it. */
  close(): void;
}

const VERSION = 1;
const LAST_SEQ = 0xffff_ffff;
const TABLES = ["meta", "channels", "messages", "outbox"];

type MessageRecord = MessageRow & { seq: number };
type Names = Required<Pick<MemberRow, "user" | "handle" | "displayName">>;

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

/**
 * Keys that begin so. Members have theirs in the table `meta`, where versions before this one do not mind them: `member, channel`
 * says that the list is known, `member, channel, user` is somebody in it, `person, user` has their names.
 */
const under = (...path: string[]): IDBKeyRange => IDBKeyRange.bound(path, [...path, []]);

const isId = (it: unknown): it is Id => typeof it === "string" && /^\d{1,19}$/.test(it);
const isObject = (it: unknown): it is Record<string, unknown> => typeof it === "object" && it !== null;
const areNumbers = (row: Record<string, unknown>, names: string[]): boolean => names.every((name) => typeof row[name] === "number");

function isMeta(it: unknown): it is Meta {
  return (
    isObject(it) && (it["user"] === null || isId(it["user"])) && (it["session"] === null || isId(it["session"])) &&
    areNumbers(it, ["generation"]) && it["syncToken"] instanceof Uint8Array && isObject(it["listing"])
  );
}

function isChannelRow(it: unknown): it is ChannelRow {
  return (
    isObject(it) && isId(it["channel"]) && isObject(it["marks"]) && areNumbers(it, ["firstSeq", "base", "have", "head", "used"]) &&
    (!it["last"] || isPreview(it["last"]))
  );
}

function isPreview(it: unknown): boolean {
  return isObject(it) && isId(it["author"]) && areNumbers(it, ["seq", "timeMs", "kind"]) && typeof it["text"] === "string";
}

const isPerson = (it: unknown): it is Names => isObject(it) && typeof it["handle"] === "string" && typeof it["displayName"] === "string";
const isMember = (it: unknown): it is MemberRow => isObject(it) && isId(it["user"]) && areNumbers(it, ["joinedSeq"]);

function isOutboxItem(it: unknown): it is OutboxItem {
  return (
    isObject(it) && areNumbers(it, ["id", "kind", "flags", "createdMs"]) && isId(it["channel"]) &&
    typeof it["key"] === "string" && /^[0-9a-f]{32}$/.test(it["key"]) && it["tail"] instanceof Uint8Array &&
    (it["after"] === undefined || areNumbers(it, ["after"]))
  );
}

class DatabaseStore implements Store {
  readonly isPersistent = true;
  /** The browser has closed it: it failed below, or somebody cleared it. */
  private isLost = false;

  constructor(
    private readonly name: string,
    private database: IDBDatabase,
  ) {
    this.watch();
  }

  private watch(): void {
    // Log-out in another tab deletes the database: let it.
    this.database.onversionchange = () => this.database.close();
    this.database.onclose = () => (this.isLost = true);
  }

  async load(): Promise<Loaded> {
    if (this.isLost) {
      this.database = await openDatabase(this.name);
      this.isLost = false;
      this.watch();
    }
    try {
      const transaction = this.database.transaction(["meta", "channels", "outbox"]);
      const [meta, channels, outbox] = (await Promise.all([
        result(transaction.objectStore("meta").get("meta")),
        result(transaction.objectStore("channels").getAll()),
        result(transaction.objectStore("outbox").getAll()),
      ])) as [unknown, unknown[], unknown[]];
      const isWhole = (meta === undefined || isMeta(meta)) && channels.every(isChannelRow) && outbox.every(isOutboxItem);
      if (isWhole) return { meta: (meta as Meta | undefined) ?? emptyMeta(), channels: channels as ChannelRow[], outbox };
    } catch (error) {
      if (this.isLost || !isUnreadable(error)) throw error;
    }
    return this.rebuild();
  }

  /** Empties the tables; what was written here and can be read stays. */
  private async rebuild(): Promise<Loaded> {
    const outbox: OutboxItem[] = [];
    const keys = await result(this.database.transaction("outbox").objectStore("outbox").getAllKeys());
    for (const key of keys) {
      // One by one, so that one that cannot be read does not take the others with it.
      const item: unknown = await result(this.database.transaction("outbox").objectStore("outbox").get(key)).catch(() => null);
      if (isOutboxItem(item)) outbox.push(item);
    }
    const old: unknown = await result(this.database.transaction("meta").objectStore("meta").get("meta")).catch(() => null);
    const meta = emptyMeta();
    // Whose it is, and the session that the next one replaces, so that its late frames are refused.
    if (isObject(old) && isId(old["user"])) meta.user = old["user"];
    if (isObject(old) && isId(old["session"])) meta.session = old["session"];
    const transaction = this.database.transaction(TABLES, "readwrite", { durability: "strict" });
    const ended = done(transaction);
    for (const table of TABLES) transaction.objectStore(table).clear();
    for (const item of outbox) transaction.objectStore("outbox").put(item);
    transaction.objectStore("meta").put(meta, "meta");
    await ended;
    return { meta, channels: [], outbox, rebuilt: { unsentKept: outbox.length, unsentLost: keys.length - outbox.length } };
  }

  async apply(steps: Persist[]): Promise<void> {
    const isOutbox = steps.some((step) => "put" in step && step.put === "outbox");
    const transaction = this.database.transaction(TABLES, "readwrite", {
      durability: isOutbox ? "strict" : "relaxed",
    });
    const ended = done(transaction);
    try {
      const [meta, channels, messages, outbox] = TABLES.map((name) => transaction.objectStore(name));
      for (const step of steps) {
        if ("put" in step) {
          if (step.put === "meta") meta!.put(step.meta, "meta");
          else if (step.put === "channel") channels!.put(step.row);
          else if (step.put === "outbox") outbox!.put(step.item);
          else if (step.put === "members") putMembers(meta!, step);
          else messages!.put({ ...step.row, seq: step.row.event.seq } satisfies MessageRecord);
        } else if (step.remove === "outbox") {
          outbox!.delete(step.id);
        } else if (step.remove === "members") {
          for (const user of step.users) meta!.delete(["member", step.channel, user]);
        } else if (step.remove === "everything-received") {
          channels!.clear();
          messages!.clear();
          meta!.delete(under("member"));
        } else if (step.remove === "older-messages") {
          messages!.delete(IDBKeyRange.bound([step.channel, 0], [step.channel, step.below], false, true));
        } else {
          if (step.remove === "channel") {
            channels!.delete(step.channel);
            meta!.delete(under("member", step.channel));
          }
          messages!.delete(under(step.channel));
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
    const newest = await result(messages.openKeyCursor(under(channel), "prev"));
    if (!newest) return [];
    const seq = (newest.key as [Id, number])[1];
    return this.messages(channel, seq + 1, limit);
  }

  async members(channel: Id): Promise<MemberRow[]> {
    const meta = this.database.transaction("meta").objectStore("meta");
    const [[isKnown, ...rows], people] = (await Promise.all([
      result(meta.getAll(under("member", channel))),
      result(meta.getAll(under("person"))),
    ])) as [unknown[], unknown[]];
    // Without a list there may be those who came since.
    return isKnown === true ? withNames(rows.filter(isMember), people.filter(isPerson)) : [];
  }

  close(): void {
    this.database.close();
  }
}

function putMembers(meta: IDBObjectStore, { channel, members, isAll }: Extract<Persist, { put: "members" }>): void {
  if (isAll) {
    meta.delete(under("member", channel));
    meta.put(true, ["member", channel]);
  }
  for (const { user, role, joinedSeq, handle, displayName } of members) {
    meta.put({ user, role, joinedSeq }, ["member", channel, user]);
    if (handle) meta.put({ user, handle, displayName }, ["person", user]);
  }
}

function withNames(rows: Iterable<MemberRow>, people: Iterable<Names>): MemberRow[] {
  const known = new Map([...people].map((it) => [it.user, it]));
  return [...rows].map((row) => ({ ...known.get(row.user), ...row }));
}

class MemoryStore implements Store {
  readonly isPersistent = false;
  private readonly rows = new Map<Id, Map<number, MessageRow>>();
  private readonly lists = new Map<Id, Map<Id, MemberRow>>();
  private readonly people = new Map<Id, Names>();

  constructor(readonly whyMemory: "denied" | "newer") {}

  load(): Promise<Loaded> {
    return Promise.resolve({ meta: emptyMeta(), channels: [], outbox: [] });
  }

  apply(steps: Persist[]): Promise<void> {
    for (const step of steps) {
      if ("put" in step) {
        if (step.put === "message") {
          const { channel, event } = step.row;
          if (!this.rows.has(channel)) this.rows.set(channel, new Map());
          this.rows.get(channel)!.set(event.seq, step.row);
        } else if (step.put === "members") {
          if (step.isAll) this.lists.set(step.channel, new Map());
          for (const { user, role, joinedSeq, handle, displayName = "" } of step.members) {
            this.lists.get(step.channel)?.set(user, { user, role, joinedSeq });
            if (handle) this.people.set(user, { user, handle, displayName });
          }
        }
      } else if (step.remove === "members") {
        for (const user of step.users) this.lists.get(step.channel)?.delete(user);
      } else if (step.remove === "everything-received") {
        this.rows.clear();
        this.lists.clear();
      } else if (step.remove !== "outbox") {
        const below = step.remove === "older-messages" ? step.below : Infinity;
        const rows = this.rows.get(step.channel);
        for (const seq of rows?.keys() ?? []) if (seq < below) rows!.delete(seq);
        if (step.remove === "channel") this.lists.delete(step.channel);
      }
    }
    return Promise.resolve();
  }

  messages(channel: Id, before: number, limit: number): Promise<MessageRow[]> {
    const rows = [...(this.rows.get(channel)?.values() ?? [])].filter((row) => row.event.seq < before);
    rows.sort((a, b) => a.event.seq - b.event.seq);
    return Promise.resolve(limit > 0 ? rows.slice(-limit) : []);
  }

  members(channel: Id): Promise<MemberRow[]> {
    return Promise.resolve(withNames(this.lists.get(channel)?.values() ?? [], this.people.values()));
  }

  close(): void {}
}

/** What a stored value that cannot be read back raises; other errors say nothing about what is stored. */
const isUnreadable = (error: unknown): boolean =>
  error instanceof DOMException && ["DataError", "DataCloneError", "NotReadableError", "NotFoundError"].includes(error.name);

function openDatabase(name: string): Promise<IDBDatabase> {
  const request = indexedDB.open(name, VERSION);
  request.onupgradeneeded = () => {
    const database = request.result;
    database.createObjectStore("meta");
    database.createObjectStore("channels", { keyPath: "channel" });
    database.createObjectStore("messages", { keyPath: ["channel", "seq"] });
    database.createObjectStore("outbox", { keyPath: "id" });
  };
  return result(request);
}

/** Opens the database of this name; in memory if the browser denies one, or if a newer version of this package made it. */
export async function openStore(name: string): Promise<Store> {
  try {
    return new DatabaseStore(name, await openDatabase(name));
  } catch (error) {
    return new MemoryStore(error instanceof DOMException && error.name === "VersionError" ? "newer" : "denied");
  }
}

/** Removes the database of this name, with everything in it. */
export async function deleteStore(name: string): Promise<void> {
  try {
    await result(indexedDB.deleteDatabase(name));
  } catch {
    // Nothing can be stored here, so nothing is there.
  }
}
