/**
 * The driver over a WebSocket of the test's own, IndexedDB in memory, and a node in memory: what a tab does with the core's
 * outputs, without a browser.
 */

import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Client } from "../src/browser/client.js";
import { Engine } from "../src/browser/engine.js";
import { Session } from "../src/browser/session.js";
import { refusalAdvice } from "../src/browser/events.js";
import { View } from "../src/browser/view.js";
import { SimServer } from "./sim-server.js";

const ME = "10";
let server: SimServer;
let sockets: FakeSocket[] = [];
let reachable = true;
/** The node's words do not get through. */
let isHeld = false;

class FakeSocket {
  static readonly OPEN = 1;
  readyState = 0;
  binaryType = "";
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  private readonly number = sockets.push(this);

  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {
    setTimeout(() => {
      if (!reachable) return this.lost(1006);
      this.readyState = 1;
      this.onopen?.();
    }, 1);
  }

  send(bytes: Uint8Array): void {
    server.receive(this.number, ME, bytes.slice());
    setTimeout(() => this.flush(), 1);
  }

  flush(): void {
    if (this.readyState !== 1 || isHeld) return;
    for (const bytes of server.session(this.number)?.out.splice(0) ?? []) this.onmessage?.({ data: bytes.slice().buffer as ArrayBuffer });
  }

  close(): void {
    this.readyState = 3;
    server.cut(this.number);
  }

  lost(code: number): void {
    this.close();
    this.onclose?.({ code });
  }
}

async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  await vi.waitFor(async () => expect(await check()).toBe(true), { timeout: 10_000, interval: 5 });
}

const tokens = {
  text: JSON.stringify({
    user: ME, handle: "ada", displayName: "Ada", device: "5", accessToken: "t", expiresAtMs: Date.now() + 1e9, refreshToken: "r",
  }) as string | null,
  load(): string | null {
    return this.text;
  },
  save(text: string | null): void {
    this.text = text;
  },
};

async function open(): Promise<Client> {
  return Client.open(Session.load("http://node.test", tokens)!, { config: { seed: 1, reconnectBaseMs: 5, reconnectCapMs: 20 } });
}

const texts = async (client: Client): Promise<string[]> =>
  (await client.messages("1", 100)).map((it) => (it.content.is === "text" ? it.content.text : "")).filter(Boolean);

beforeEach(() => {
  sockets = [];
  reachable = true;
  isHeld = false;
  server = new SimServer(() => 0.99);
  server.faults = false;
  server.createChannel("1", [ME, "20"]);
  vi.stubGlobal("WebSocket", FakeSocket);
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  vi.unstubAllGlobals();
  indexedDB = new IDBFactory();
});

describe("driver", () => {
  it("connects, sends in order, hears others, and keeps what it heard", async () => {
    const client = await open();
    const heard: number[] = [];
    client.on((event) => event.is === "message" && heard.push(event.message.seq));
    await until(() => client.connection.is === "online" && client.channelInfo("1") !== undefined);
    for (let i = 0; i < 20; i++) void client.send("1", `m${i}`);
    await until(() => server.channels.get("1")!.log.length === 21 && client.outbox("1").length === 0);
    server.say("1", "20", "hello");
    sockets.at(-1)!.flush();
    await until(async () => (await texts(client)).length === 21);
    expect(await texts(client)).toEqual([...Array.from({ length: 20 }, (_, i) => `m${i}`), "hello"]);
    expect(heard).toEqual(Array.from({ length: 22 }, (_, i) => i + 1));
    expect(sockets).toHaveLength(1);
    expect([sockets[0]!.url, sockets[0]!.protocol]).toEqual(["ws://node.test/v1/ws", "conch.1"]);
    await client.close();
  });

  it("what is written without a connection survives the tab and goes out once, in order", async () => {
    let client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    reachable = false;
    sockets.at(-1)!.lost(1006);
    for (let i = 0; i < 10; i++) await client.send("1", `m${i}`);
    expect(client.outbox("1").map((it) => it.state)).toEqual(Array(10).fill("waiting"));
    await client.close();
    reachable = true;
    client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 11);
    expect(await texts(client)).toEqual(Array.from({ length: 10 }, (_, i) => `m${i}`));
    expect(client.outbox("1")).toEqual([]);
    await client.close();
  });

  it("comes back by itself after every loss, and brings nothing twice", async () => {
    const client = await open();
    await until(() => client.channelInfo("1") !== undefined);
    for (let i = 0; i < 10; i++) {
      void client.send("1", `m${i}`);
      sockets.at(-1)!.lost(1006);
      await until(() => client.connection.is === "online");
    }
    await until(() => client.outbox("1").length === 0 && client.channelInfo("1")!.heldTo === 11);
    expect(await texts(client)).toEqual(Array.from({ length: 10 }, (_, i) => `m${i}`));
    await client.close();
  });

  it("a code that is the end ends it, and says so", async () => {
    const client = await open();
    await until(() => client.connection.is === "online");
    sockets.at(-1)!.lost(4600);
    await until(() => client.connection.is === "stopped");
    expect(client.connection).toEqual({ is: "stopped", reason: "ended", code: 4600 });
    await client.close();
  });

  it("a session that is over elsewhere stops this one", async () => {
    const client = await open();
    await until(() => client.connection.is === "online");
    const text = tokens.text;
    tokens.text = null;
    sockets.at(-1)!.lost(4501);
    await until(() => client.connection.is === "stopped");
    tokens.text = text;
    expect(client.connection).toMatchObject({ reason: "logged-out" });
    await client.close();
  });

  it("a refused text is kept over the tab until it is cancelled", async () => {
    let client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    await client.send("404", "to nobody");
    await until(() => client.outbox("404")[0]?.state === "refused");
    await client.close();
    client = await open();
    await until(() => client.outbox("404").length === 1);
    expect(client.outbox("404")[0]).toMatchObject({ text: "to nobody", state: "refused", code: 4402 });
    await client.cancel(client.outbox("404")[0]!.key);
    expect(client.outbox("404")).toEqual([]);
    await client.close();
    client = await open();
    await until(() => client.connection.is === "online");
    expect(client.outbox("404")).toEqual([]);
    await client.close();
  });

  it("where what was kept cannot be read it says so, and takes nothing", async () => {
    vi.spyOn(IDBObjectStore.prototype, "getAll").mockImplementation(() => {
      throw new DOMException("damaged", "UnknownError");
    });
    const client = await open();
    await until(() => client.connection.is === "stopped");
    expect(client.connection).toMatchObject({ reason: "storage" });
    await expect(client.send("1", "lost")).rejects.toMatchObject({ code: "storage" });
    vi.restoreAllMocks();
    await client.hurry();
    await until(() => client.connection.is === "online");
    expect(client.storage).toEqual({ is: "kept" });
    await client.close();
  });

  it("a handle tells how its message ended", async () => {
    const client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    const handle = await client.send("1", "hello", { mentions: ["20", "9007199254740993"] });
    expect(await handle.outcome).toMatchObject({ is: "stored", seq: 2 });
    await until(async () => (await texts(client)).length === 1);
    const [message] = await client.messages("1", 1);
    expect(message).toMatchObject({ key: handle.key, content: { is: "text", text: "hello", mentions: ["20", "9007199254740993"] } });
    const refused = await client.send("99", "to nobody");
    expect(await refused.outcome).toMatchObject({ is: "refused", code: 4402 });
    expect(client.outbox("99")).toMatchObject([{ state: "refused", code: 4402, text: "to nobody" }]);
    reachable = false;
    sockets.at(-1)!.lost(1006);
    const open_ = await client.send("1", "waits");
    await client.close();
    expect(await open_.outcome).toEqual({ is: "unknown" });
  });
});

describe("a channel to work with", () => {
  const seqs = (page: { seq: number }[]): number[] => page.map((it) => it.seq);
  const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

  it("sends, tells what is known, and pages back through what is here and what is only at the node", async () => {
    for (let i = 2; i <= 40; i++) server.say("1", "20", `m${i}`);
    const client = await Client.open(Session.load("http://node.test", tokens)!, { config: { seed: 1, reconnectBaseMs: 5, reconnectCapMs: 20, firstSightEvents: 10 } });
    const channel = client.channel("1");
    expect([channel.id, channel.info()]).toEqual(["1", undefined]);
    await until(() => channel.info()?.heldTo === 40);
    expect(channel.info()!.heldFrom).toBe(31);
    const pages: number[] = [];
    for (let page = await channel.history(null, 12); page.length > 0; page = await channel.history(page[0]!.seq, 12)) pages.unshift(...seqs(page));
    expect(pages).toEqual(range(1, 40));
    // Above the newest there is nothing; below it is here.
    expect([seqs(await channel.history(1_000, 3)), seqs(await channel.history(4, 12))]).toEqual([[38, 39, 40], [1, 2, 3]]);
    const sent = await channel.send("and mine");
    expect(await sent.outcome).toMatchObject({ is: "stored", seq: 41 });
    await channel.markRead(41);
    await until(() => channel.info()!.unread === 0 && channel.outbox().length === 0);
    await client.close();
  });

  it("without a connection its history is what is here, and no answer where that is nothing", async () => {
    for (let i = 2; i <= 40; i++) server.say("1", "20", `m${i}`);
    const client = await Client.open(Session.load("http://node.test", tokens)!, { config: { seed: 1, reconnectBaseMs: 5, reconnectCapMs: 20, firstSightEvents: 10 } });
    await until(() => client.channelInfo("1")?.heldTo === 40);
    reachable = false;
    sockets.at(-1)!.lost(1006);
    expect(seqs(await client.history("1", null, 12))).toEqual(range(31, 40));
    expect(seqs(await client.history("1", 33, 12))).toEqual([31, 32]);
    await expect(client.history("1", 31, 12)).rejects.toMatchObject({ code: "offline" });
    await client.close();
  });

  it("held while it is open, all of it; let go of once it is closed, but for the newest; there again when it is wanted", async () => {
    for (let i = 2; i <= 40; i++) server.say("1", "20", `m${i}`);
    const config = { seed: 1, reconnectBaseMs: 5, reconnectCapMs: 20, heldEventsMax: 6 };
    const client = await Client.open(Session.load("http://node.test", tokens)!, { config });
    const channel = client.channel("1");
    await channel.open();
    await until(() => channel.info()?.heldTo === 40);
    expect(seqs(await channel.history(null, 50))).toEqual(range(1, 40));
    const again = async (): Promise<void> => {
      const before = sockets.length;
      sockets.at(-1)!.lost(1006);
      await until(() => sockets.length > before && client.connection.is === "online");
    };
    await again();
    expect(channel.info()!.heldFrom).toBe(1);
    await channel.close();
    await again();
    await until(() => channel.info()!.heldFrom === 35);
    expect(seqs(await client.messages("1", 100))).toEqual(range(35, 40));
    expect(seqs(await channel.history(null, 50))).toEqual(range(1, 40));
    await client.close();
  });

  it("reads onwards from what was read, and any range: from here what is here, from the node what is not, which is not kept", async () => {
    for (let i = 2; i <= 40; i++) server.say("1", "20", `m${i}`);
    const client = await Client.open(Session.load("http://node.test", tokens)!, { config: { seed: 1, reconnectBaseMs: 5, reconnectCapMs: 20, firstSightEvents: 10 } });
    const channel = client.channel("1");
    expect(await channel.newer(0, 5)).toEqual([]);
    await until(() => channel.info()?.heldTo === 40);
    const pages = server.seen.pages;
    expect([seqs(await channel.newer(34, 4)), seqs(await channel.newer(38, 10)), await channel.newer(40, 5), await channel.newer(NaN, 5), await channel.newer(5, 0)]).toEqual([range(35, 38), [39, 40], [], [], []]);
    expect([seqs(await channel.range(31, 40)), seqs(await channel.range(33, 34)), seqs(await channel.range(39, 1_000)), await channel.range(5, 4)]).toEqual([
      range(31, 40), [33, 34], [39, 40], [],
    ]);
    expect(server.seen.pages).toBe(pages);
    // A page of this node's has seven.
    expect([seqs(await channel.newer(10, 5)), seqs(await channel.range(-3, 32))]).toEqual([range(11, 15), range(1, 32)]);
    expect(server.seen.pages).toBe(pages + 1 + 5);
    expect([seqs(await channel.range(25, 60)), await channel.range(41, 50)]).toEqual([range(25, 40), []]);
    expect([channel.info()!.heldFrom, seqs(await client.messages("1", 100))]).toEqual([31, range(31, 40)]);
    for (const [from, to] of [[1, 1_001], [1, NaN], [-Infinity, 3]] as const) await expect(channel.range(from, to)).rejects.toMatchObject({ code: "invalid" });
    reachable = false;
    sockets.at(-1)!.lost(1006);
    expect([seqs(await channel.newer(34, 100)), seqs(await channel.range(31, 33)), await channel.range(41, 50)]).toEqual([range(35, 40), range(31, 33), []]);
    await expect(channel.newer(29, 5)).rejects.toMatchObject({ code: "offline" });
    await expect(channel.range(30, 33)).rejects.toMatchObject({ code: "offline" });
    await client.close();
  });

  it("who is in it: from the first event on without asking, with the node's names once it said them, also without a connection", async () => {
    const list = [["20", "owner", 1, "grace", "Grace"], [ME, "member", 3, "ada", "Ada"]].map(([user_id, role, joined_seq, handle, display_name]) => ({
      user_id, role, joined_seq, handle, display_name,
    }));
    const answers: (() => Response)[] = [];
    vi.stubGlobal("fetch", () => {
      const answer = answers.shift();
      return answer ? Promise.resolve(answer()) : Promise.reject(new TypeError("unreachable"));
    });
    let client = await open();
    expect(await client.knownMembers("1")).toEqual([]);
    await expect(client.members("1")).rejects.toMatchObject({ code: "unreachable" });
    await until(() => client.channelInfo("1")?.heldTo === 1);
    const nameless = [ME, "20"].map((user) => ({ user, role: "member", joinedSeq: 1, handle: "", displayName: "" }));
    expect(await client.channel("1").knownMembers()).toEqual(nameless);
    expect(await client.members("1")).toEqual(nameless);
    answers.push(() => Response.json({ members: list }), () => Response.json({ code: "forbidden" }, { status: 403 }));
    expect(await client.members("1")).toMatchObject([{ user: "20", role: "owner", handle: "grace" }, { user: ME, displayName: "Ada" }]);
    await expect(client.members("1")).rejects.toMatchObject({ code: "forbidden" });
    await until(async () => (await client.knownMembers("1")).every((it) => it.handle !== ""));
    await client.close();
    reachable = false;
    client = await open();
    expect(await client.members("1")).toMatchObject([{ user: "20", role: "owner", displayName: "Grace", joinedSeq: 1 }, { user: ME, role: "member", handle: "ada" }]);
    await client.close();
  });

  it("its newest message is told, also by a device that is not connected", async () => {
    server.say("1", "20", "hello");
    let client = await open();
    await until(() => client.channelInfo("1")?.last?.seq === 2);
    expect(client.channelInfo("1")!.last).toMatchObject({ author: "20", kind: 1, text: "hello" });
    await client.close();
    reachable = false;
    client = await open();
    await until(() => client.channelInfo("1")?.last?.text === "hello");
    await client.close();
  });

  it("what to offer about a refusal is what the Rust SDK offers", () => {
    expect([4103, 4402, 4403, 4406, 4405, 4413, 4400, 4603, 4100].map(refusalAdvice)).toEqual([
      "check-then-retry", "discard", "discard", "discard", "edit", "edit", "edit", "retry", "retry",
    ]);
  });
});

function full(): never {
  throw new DOMException("full", "QuotaExceededError");
}

describe("what was refused, or has not left", () => {
  it("goes once more under its own key, and its handle tells", async () => {
    const client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    const first = await client.send("404", "to nobody yet");
    expect(await first.outcome).toEqual({ is: "refused", code: 4402 });
    server.createChannel("404", [ME, "20"]);
    const second = await client.retry(first.key);
    expect(second.key).toBe(first.key);
    expect(client.outbox("404")).toMatchObject([{ state: "waiting", code: null }]);
    expect(await second.outcome).toMatchObject({ is: "stored", seq: 2 });
    await expect(client.retry(first.key)).rejects.toMatchObject({ code: "not_refused" });
    await client.close();
  });

  it("is taken back before it leaves, and its handle tells", async () => {
    const client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    reachable = false;
    sockets.at(-1)!.lost(1006);
    const [one, two] = [await client.send("1", "one"), await client.send("1", "two")];
    await client.cancel(one.key);
    expect(await one.outcome).toEqual({ is: "cancelled" });
    reachable = true;
    await client.hurry();
    expect(await two.outcome).toMatchObject({ is: "stored", seq: 2 });
    await client.cancel(two.key);
    await until(async () => (await texts(client)).join() === "two");
    await client.close();
  });
});

/** From here on the channel is open at the node, and the next send goes out at once. */
async function sentOne(client: Client): Promise<void> {
  await (await client.send("1", "before")).outcome;
  await until(() => client.outbox("1").length === 0);
}

describe("on its way", () => {
  it("a message waits, is sending while its answer is awaited, and waits again when that cannot come", async () => {
    const client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    await sentOne(client);
    const states = (): string => client.outbox("1").map((it) => it.state).join();
    const said: string[] = [];
    client.on((event) => event.is === "outbox" && said.push(states()));
    isHeld = true;
    const one = await client.send("1", "one");
    expect([states(), said]).toEqual(["sending", ["sending"]]);
    await client.send("1", "two");
    expect([states(), said.at(-1)]).toEqual(["sending,waiting", "sending,waiting"]);
    const [before] = client.outbox("1");
    reachable = false;
    sockets.at(-1)!.lost(1006);
    await until(() => states() === "waiting,waiting");
    // Who holds the one before sees that it changed.
    expect([said.at(-1), before!.state]).toEqual(["waiting,waiting", "sending"]);
    isHeld = false;
    reachable = true;
    await client.hurry();
    expect(await one.outcome).toMatchObject({ is: "stored", seq: 3 });
    await until(() => states() === "");
    expect(said.at(-1)).toBe("");
    await client.close();
  });

  it("a client that was closed says so, and nothing else", async () => {
    const client = await open();
    await until(() => client.channelInfo("1") !== undefined);
    const heard: string[] = [];
    client.on((event) => heard.push(event.is));
    await client.close();
    expect(heard.filter((it) => it === "closed")).toEqual(["closed"]);
    expect(heard.at(-1)).toBe("closed");
  });

  it("a window shows it in its place until it is among the others", async () => {
    server.say("1", "20", "hello");
    const client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 2);
    await sentOne(client);
    const view = await View.open(client, "1", 10);
    const shown = async (): Promise<string> =>
      (await view.items()).map((it) => (it.is === "outbox" ? `${it.message.text} ${it.message.state}` : `${it.message.seq}`)).join();
    isHeld = true;
    await client.send("1", "one");
    expect([await view.changed(), await shown()]).toEqual([true, "1,2,3,one sending"]);
    isHeld = false;
    sockets.at(-1)!.flush();
    await until(async () => (await view.changed()) && (await shown()) === "1,2,3,4");
    await client.close();
    expect(await view.changed()).toBe(false);
  });
});

describe("when the device does not do what it should", () => {
  it("full: a send is refused, nothing that was kept is lost, and it goes on when there is room", async () => {
    const client = await open();
    const said: string[] = [];
    client.on((event) => event.is === "storage" && said.push(event.state.is));
    await until(() => client.channelInfo("1")?.heldTo === 1);
    reachable = false;
    sockets.at(-1)!.lost(1006);
    await client.send("1", "kept before");
    vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(full);
    await expect(client.send("1", "not taken")).rejects.toMatchObject({ code: "storage" });
    expect(client.connection).toMatchObject({ is: "stopped", reason: "storage" });
    expect([client.storage, said]).toEqual([{ is: "full" }, ["full"]]);
    await expect(client.send("1", "not taken either")).rejects.toMatchObject({ code: "storage" });
    expect(client.outbox("1").map((it) => [it.text, it.state])).toEqual([["kept before", "waiting"]]);

    reachable = true;
    vi.restoreAllMocks();
    await client.hurry();
    await client.send("1", "and after");
    await until(() => client.channelInfo("1")?.heldTo === 3 && client.outbox("1").length === 0);
    expect(await texts(client)).toEqual(["kept before", "and after"]);
    expect(client.storage).toEqual({ is: "kept" });
    await client.close();
  });

  it("full in the middle of an answer: what was stored at the node and not here is found again, once", async () => {
    const client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    // From the moment when the node has it.
    const receive = server.receive.bind(server);
    server.receive = (...message) => {
      receive(...message);
      if (server.channels.get("1")!.log.length === 2) vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(full);
    };
    const handle = await client.send("1", "one");
    await until(() => client.storage.is === "full");
    expect(server.channels.get("1")!.log).toHaveLength(2);
    server.receive = receive;
    vi.restoreAllMocks();
    expect(client.outbox("1")).toMatchObject([{ text: "one", state: "waiting" }]);
    await client.hurry();
    expect(await handle.outcome).toMatchObject({ is: "stored", seq: 2 });
    await until(async () => (await texts(client)).join() === "one");
    expect(server.channels.get("1")!.log).toHaveLength(2);
    await client.close();
  });

  it("denied: everything works in memory, and says so", async () => {
    const real = globalThis.indexedDB;
    Object.defineProperty(globalThis, "indexedDB", { value: undefined, configurable: true, writable: true });
    const client = await open();
    globalThis.indexedDB = real;
    expect([client.storage, client.isPersistent]).toEqual([{ is: "memory", why: "denied" }, false]);
    await until(() => client.channelInfo("1") !== undefined);
    expect(await (await client.send("1", "one")).outcome).toMatchObject({ is: "stored" });
    server.say("1", "20", "two");
    sockets.at(-1)!.flush();
    await until(async () => (await texts(client)).join() === "one,two");
    expect(client.storage).toEqual({ is: "memory", why: "denied" });
    await client.close();
  });

  it("damaged: loaded from the node again, unsent messages go out, and it says so", async () => {
    let client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    reachable = false;
    sockets.at(-1)!.lost(1006);
    await client.send("1", "unsent");
    await client.close();
    const request = indexedDB.open(`conch:${ME}:5`);
    const database = await new Promise<IDBDatabase>((resolve) => (request.onsuccess = () => resolve(request.result)));
    const write = database.transaction(["channels", "meta", "outbox"], "readwrite");
    write.objectStore("channels").put({ channel: "1", marks: "none" });
    write.objectStore("meta").put({ user: ME, syncToken: "not bytes" }, "meta");
    write.objectStore("outbox").put({ id: 77, channel: "1", text: "of another shape" });
    await new Promise((resolve) => (write.oncomplete = resolve));
    database.close();
    reachable = true;
    client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 2 && client.outbox("1").length === 0);
    expect(client.storage).toEqual({ is: "rebuilt", unsentKept: 1, unsentLost: 1 });
    expect(await texts(client)).toEqual(["unsent"]);
    await client.close();
    client = await open();
    await until(() => client.connection.is === "online");
    expect(client.storage).toEqual({ is: "kept" });
    await client.close();
  });

  it("away for more than seven days: what may have arrived is given up with a word, never sent twice (P-029)", async () => {
    let client = await open();
    await until(() => client.channelInfo("1")?.heldTo === 1);
    reachable = false;
    sockets.at(-1)!.lost(1006);
    await client.send("1", "old");
    await client.close();
    vi.setSystemTime(Date.now() + 7 * 86_400_000 + 1_000);
    reachable = true;
    client = await open();
    const said: unknown[] = [];
    client.on((event) => event.is === "send-refused" && said.push(event.code));
    await until(() => client.connection.is === "online");
    await until(() => client.outbox("1")[0]?.state === "refused");
    expect(client.outbox("1")).toMatchObject([{ text: "old", state: "refused", code: 4103 }]);
    expect(said).toEqual([4103]);
    expect(server.channels.get("1")!.log).toHaveLength(1);
    const old = client.outbox("1")[0]!.key;
    const again = await client.retry(old);
    expect(again.key).not.toBe(old);
    expect(await again.outcome).toMatchObject({ is: "stored", seq: 2 });
    await until(() => client.outbox("1").length === 0);
    await client.close();
  });
});

/** Web Locks, as far as tabs use them: one holder per name, the others in a queue that they may leave. */
function locks(): unknown {
  const tails = new Map<string, Promise<unknown>>();
  return {
    request(name: string, ...rest: unknown[]): Promise<unknown> {
      const work = rest.at(-1) as () => Promise<unknown>;
      const signal = (rest.length > 1 ? (rest[0] as { signal?: AbortSignal }) : {}).signal;
      const before = tails.get(name) ?? Promise.resolve();
      let isHeld = false;
      const held = before.then(() => {
        if (signal?.aborted) throw signal.reason;
        isHeld = true;
        return work();
      });
      tails.set(name, held.catch(() => {}));
      const left = new Promise((_, reject) => signal?.addEventListener("abort", () => !isHeld && reject(signal.reason as Error)));
      return Promise.race([held, left]);
    },
  };
}

describe("three tabs of one account", () => {
  let tabs: Client[] = [];
  const engines: Engine[] = [];
  beforeEach(() => {
    vi.stubGlobal("navigator", { locks: locks() });
    const stop = Engine.prototype.input;
    vi.spyOn(Engine.prototype, "input").mockImplementation(function (this: Engine, input) {
      if (engines.at(-1) !== this && input.is === "start") engines.push(this);
      return stop.call(this, input);
    });
  });
  afterEach(async () => {
    for (const tab of tabs) await tab.close();
    tabs = [];
  });
  const all = (check: (tab: Client) => boolean): Promise<void> => until(() => tabs.every(check));

  it("one connection, one outbox, equal unread; handles of every tab tell", async () => {
    for (let i = 0; i < 3; i++) tabs.push(await open());
    await all((tab) => tab.channelInfo("1")?.heldTo === 1 && tab.connection.is === "online");
    expect([sockets.length, tabs.map((tab) => tab.isLeader)]).toEqual([1, [true, false, false]]);
    server.say("1", "20", "hello");
    sockets[0]!.flush();
    await all((tab) => tab.channelInfo("1")!.unread === 1);
    await tabs[2]!.markRead("1", 2);
    await all((tab) => tab.channelInfo("1")!.unread === 0);

    reachable = false;
    sockets[0]!.lost(1006);
    const handles = [];
    for (const [i, tab] of tabs.entries()) handles.push(await tab.send("1", `from tab ${i}`));
    await all((tab) => tab.outbox("1").map((it) => it.text).join() === "from tab 0,from tab 1,from tab 2");
    await tabs[0]!.cancel(handles[0]!.key);
    await all((tab) => tab.outbox("1").length === 2);
    expect(await handles[0]!.outcome).toEqual({ is: "cancelled" });
    reachable = true;
    await tabs[1]!.hurry();
    expect(await Promise.all(handles.slice(1).map((it) => it.outcome))).toMatchObject([{ is: "stored", seq: 3 }, { is: "stored", seq: 4 }]);
    await all((tab) => tab.outbox("1").length === 0 && tab.channelInfo("1")!.heldTo === 4);
    for (const tab of tabs) expect(await texts(tab)).toEqual(["hello", "from tab 1", "from tab 2"]);
  });

  it("every tab shows what is sending, one that comes later too", async () => {
    for (let i = 0; i < 2; i++) tabs.push(await open());
    await all((tab) => tab.channelInfo("1")?.heldTo === 1 && tab.connection.is === "online");
    await sentOne(tabs[1]!);
    isHeld = true;
    const one = await tabs[1]!.send("1", "one");
    await tabs[0]!.send("1", "two");
    const states = (tab: Client): string => tab.outbox("1").map((it) => it.state).join();
    await all((tab) => states(tab) === "sending,waiting");
    tabs.push(await open());
    await all((tab) => states(tab) === "sending,waiting");
    expect((await tabs[2]!.newer("1", 0, 5)).map((it) => it.seq)).toEqual([1, 2]);
    isHeld = false;
    sockets[0]!.flush();
    expect(await one.outcome).toMatchObject({ is: "stored", seq: 3 });
    await all((tab) => states(tab) === "");
  });

  it("a handle tells what another tab's leader heard before it ended, also while the message has no place yet", async () => {
    for (let i = 0; i < 2; i++) tabs.push(await open());
    await all((tab) => tab.channelInfo("1")?.heldTo === 1 && tab.connection.is === "online");
    await sentOne(tabs[1]!);
    isHeld = true;
    const { key, outcome } = await tabs[1]!.send("1", "one");
    const item = { id: 9, channel: "1", key, kind: 1, flags: 0, tail: new Uint8Array(), createdMs: 0, stored: { seq: 9, timeMs: 4 } };
    const snapshot = { connection: { is: "online" }, channels: tabs[1]!.channels(), outbox: [item], sending: [], storage: { is: "kept" } };
    (tabs[1] as unknown as { onSnapshot(it: unknown): void }).onSnapshot(snapshot);
    expect([await outcome, tabs[1]!.outbox("1")]).toMatchObject([{ is: "stored", seq: 9, timeMs: 4 }, [{ state: "sent" }]]);
  });

  it("logged out twice, and behind a close: every time to the end, and nothing stays", async () => {
    const login = tokens.text;
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("unreachable")));
    for (let i = 0; i < 2; i++) tabs.push(await open());
    await all((tab) => tab.channelInfo("1") !== undefined);
    await tabs[1]!.close();
    await Promise.all([tabs[0]!.logOut(), tabs[0]!.logOut()]);
    await tabs[1]!.logOut();
    expect([tokens.text, await indexedDB.databases()]).toEqual([null, []]);
    tokens.text = login;
  });

  it("the leader's end leads to another leader; what waits goes out once, and what was missed is told", async () => {
    for (let i = 0; i < 3; i++) tabs.push(await open());
    await all((tab) => tab.connection.is === "online" && tab.channelInfo("1") !== undefined);
    await tabs[1]!.openChannel("1");
    reachable = false;
    sockets[0]!.lost(1006);
    const waiting = await tabs[2]!.send("1", "waits");
    await tabs.shift()!.close();
    reachable = true;
    await until(() => tabs.some((tab) => tab.isLeader));
    expect(await waiting.outcome).toMatchObject({ is: "stored", seq: 2 });
    await all((tab) => tab.outbox("1").length === 0 && tab.connection.is === "online");
    expect(server.channels.get("1")!.log).toHaveLength(2);
    // The new leader knows what the tabs show; a tab that shows it no longer does not close it for the other.
    const core = (): { shown: Set<string> } => (engines.at(-1) as unknown as { core: { shown: Set<string> } }).core;
    await until(() => core().shown.has("1"));
    await tabs[1]!.openChannel("1");
    await tabs[1]!.closeChannel("1");
    await until(() => core().shown.has("1"));
    await tabs[0]!.closeChannel("1");
    await until(() => !core().shown.has("1"));
  });

  it("a full disk is said in every tab, and any of them tries again", async () => {
    for (let i = 0; i < 2; i++) tabs.push(await open());
    await all((tab) => tab.connection.is === "online");
    vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(full);
    await expect(tabs[1]!.send("1", "not taken")).rejects.toMatchObject({ code: "storage" });
    await all((tab) => tab.storage.is === "full" && tab.connection.is === "stopped");
    vi.restoreAllMocks();
    await tabs[1]!.hurry();
    await all((tab) => tab.storage.is === "kept" && tab.connection.is === "online");
    expect(await (await tabs[1]!.send("1", "taken")).outcome).toMatchObject({ is: "stored", seq: 2 });
  });
});
