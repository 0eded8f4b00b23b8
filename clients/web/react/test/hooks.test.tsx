// @vitest-environment happy-dom
/** The hooks under React's strict mode: what they show, that it keeps its identity, and that nothing is left when they go. */

import { Client, type Session } from "@conch/sdk";
import { type ReactNode, StrictMode, act } from "react";
import { type Root, createRoot } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ConchProvider, type Messages, type Sending, useChannel, useChannels, useConch, useConnection, useMessages, useSending, useStorage } from "../src/index.js";
import { FakeClient, textOf } from "./fake-client.js";

let root: Root;
let fake: FakeClient;

beforeEach(() => {
  (globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
  root = createRoot(document.body.appendChild(document.createElement("div")));
  fake = new FakeClient();
});
afterEach(async () => {
  await act(async () => root.unmount());
  expect(fake.listeners.size).toBe(0);
  expect(fake.shown).toEqual([]);
  vi.restoreAllMocks();
});

/** Draws what the hook gives, and collects it. */
async function drawn<T>(hook: () => T): Promise<T[]> {
  const seen: T[] = [];
  function Probe(): ReactNode {
    const value = hook();
    seen.push(value);
    return null;
  }
  await act(async () => root.render(<StrictMode><ConchProvider client={fake.client}><Probe /></ConchProvider></StrictMode>));
  return seen;
}
const say = (work: () => void | Promise<unknown>): Promise<void> => act(async () => void (await work()));
const seqs = (messages: Messages | undefined): number[] => messages!.messages.map((it) => it.seq);
const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe("what a client knows", () => {
  it("channels follow, and stay the same objects until they change", async () => {
    const [one, two] = [fake.info(), fake.info({ channel: "2", title: "two" })];
    fake.list = [one, two];
    const seen = await drawn(useChannels);
    expect(new Set(seen).size).toBe(1);
    const before = seen.length;
    await say(() => fake.say({ is: "outbox", channel: "1" }));
    await say(() => fake.say({ is: "changed" }));
    expect(seen).toHaveLength(before);
    const read = { ...two, unread: 3 };
    fake.list = [read, one];
    await say(() => fake.say({ is: "channel", info: read }));
    expect(seen.at(-1)).toEqual([read, one]);
    expect(seen.at(-1)![1]).toBe(one);
  });

  it("connection, storage and one channel", async () => {
    const seen = await drawn(() => [useConnection(), useStorage(), useChannel("1")?.unread, useChannel("2")] as const);
    expect(seen.at(-1)).toEqual([{ is: "connecting" }, { is: "kept" }, 0, undefined]);
    fake.connection = { is: "online" };
    await say(() => fake.say({ is: "connection", state: fake.connection }));
    fake.storage = { is: "full" };
    await say(() => fake.say({ is: "storage", state: fake.storage }));
    fake.one = fake.info({ unread: 5 });
    await say(() => fake.say({ is: "channel", info: fake.one! }));
    expect(seen.at(-1)).toEqual([{ is: "online" }, { is: "full" }, 5, undefined]);
  });

  it("what changed between drawing and listening is not missed", async () => {
    const seen = await drawn(() => {
      const state = useConnection();
      // As from an event between the two.
      fake.connection = { is: "online" };
      return state;
    });
    expect(seen.at(-1)).toEqual({ is: "online" });
  });
});

describe("messages", () => {
  it("the newest page, older ones from the device and from the node, those that come, each once and the same object", async () => {
    fake = new FakeClient([101, 200]);
    const seen = await drawn(() => useMessages("1", { page: 20, max: 500 }));
    const last = (): Messages => seen.at(-1)!;
    expect(seqs(last())).toEqual(range(181, 200));
    expect([last().loading, last().hasOlder, last().hasNewer]).toEqual([null, true, false]);
    const first = last().messages[0];
    await say(() => last().loadOlder());
    expect(seqs(last())).toEqual(range(161, 200));
    await say(() => fake.arrive());
    expect(seqs(last())).toEqual(range(161, 201));
    expect(last().messages).toContain(first);
    for (let i = 0; i < 20 && last().hasOlder; i++) await say(() => last().loadOlder());
    expect(seqs(last())).toEqual(range(1, 201));
    expect([last().hasOlder, last().messages[180] === first]).toEqual([false, true]);
    expect(seen[0]!.loadOlder).toBe(last().loadOlder);
  });

  it("a window is cut at the far end, and goes back down to the newest", async () => {
    fake = new FakeClient([1, 300]);
    const seen = await drawn(() => useMessages("1", { page: 20, max: 60 }));
    const last = (): Messages => seen.at(-1)!;
    for (let i = 0; i < 5; i++) await say(() => last().loadOlder());
    expect([seqs(last()), last().hasNewer]).toEqual([range(181, 240), true]);
    await say(() => fake.arrive());
    expect(seqs(last())).toEqual(range(181, 240));
    await say(() => last().loadNewer());
    expect([seqs(last()), last().hasOlder]).toEqual([range(201, 260), true]);
    for (let i = 0; i < 3; i++) await say(() => last().loadNewer());
    expect([seqs(last()), last().hasNewer]).toEqual([range(242, 301), false]);
    await say(() => fake.arrive());
    expect(seqs(last())).toEqual(range(243, 302));
    for (let i = 0; i < 3; i++) await say(() => last().loadOlder());
    await say(() => last().toNewest());
    expect([seqs(last()), last().hasNewer]).toEqual([range(283, 302), false]);
  });

  it("where the device let go of what follows, the window goes to the newest, and draws no gap", async () => {
    fake = new FakeClient([1, 300]);
    const seen = await drawn(() => useMessages("1", { page: 20, max: 60 }));
    const last = (): Messages => seen.at(-1)!;
    for (let i = 0; i < 8; i++) await say(() => last().loadOlder());
    expect([seqs(last()), last().hasNewer]).toEqual([range(121, 180), true]);
    fake.heldFrom = 190;
    await say(() => last().loadNewer());
    expect([seqs(last()), last().hasNewer]).toEqual([range(281, 300), false]);
  });

  it("messages that come in a burst while something is loaded are all there", async () => {
    fake = new FakeClient([1, 30]);
    const seen = await drawn(() => useMessages("1", { page: 50 }));
    await say(() => {
      void seen.at(-1)!.loadOlder();
      for (let i = 0; i < 40; i++) fake.arrive();
    });
    expect(seqs(seen.at(-1))).toEqual(range(1, 70));
  });

  it("offline is said, and what was asked for comes with the connection", async () => {
    fake = new FakeClient([50, 60]);
    fake.isOffline = true;
    const seen = await drawn(() => useMessages("1", { page: 20 }));
    expect([seqs(seen.at(-1)), seen.at(-1)!.trouble, seen.at(-1)!.hasOlder]).toEqual([range(50, 60), "offline", true]);
    fake.isOffline = false;
    await say(() => fake.say({ is: "connection", state: { is: "online" } }));
    expect([seqs(seen.at(-1)), seen.at(-1)!.trouble]).toEqual([range(30, 60), null]);
  });

  it("what was void is shown anew", async () => {
    fake = new FakeClient([1, 30]);
    const seen = await drawn(() => useMessages("1", { page: 50 }));
    const before = seen.at(-1)!.messages[4]!;
    await say(() => seen.at(-1)!.toNewest());
    expect(seen.at(-1)!.messages[4]).toBe(before);
    [fake.heldFrom, fake.heldTo] = [10, 12];
    fake.text = (seq) => `another ${seq}`;
    await say(() => fake.say({ is: "channel-reset", channel: "1" }));
    expect(seqs(seen.at(-1))).toEqual(range(1, 12));
    expect(seen.at(-1)!.messages.map(textOf)).toEqual(range(1, 12).map((seq) => `another ${seq}`));
  });

  it("the client hears once that the channel is shown, however many components show it, and once that none does", async () => {
    fake = new FakeClient([1, 3]);
    const close = vi.spyOn(fake, "closeChannel");
    const seen = await drawn(() => [useMessages("1"), useMessages("1", { page: 10 })]);
    expect(fake.shown).toEqual(["1"]);
    expect(seqs(seen.at(-1)![1])).toEqual([1, 2, 3]);
    const before = close.mock.calls.length;
    await act(async () => root.render(null));
    expect(close.mock.calls.length).toBe(before + 1);
  });
});

describe("sending", () => {
  it("shows what is on its way, sends a refused one again, forgets one", async () => {
    const seen = await drawn(() => useSending("1"));
    const last = (): Sending => seen.at(-1)!;
    await say(() => last().send("hello"));
    const { key } = last().outbox[0]!;
    expect(last().outbox).toMatchObject([{ text: "hello", state: "waiting" }]);
    await say(() => fake.put(key, "hello", "sending"));
    expect(last().outbox).toMatchObject([{ text: "hello", state: "sending" }]);
    await say(() => fake.put(key, "hello", "refused"));
    expect(last().outbox).toMatchObject([{ state: "refused", code: 4403 }]);
    await say(() => last().retry(key));
    expect(last().outbox).toMatchObject([{ text: "hello", state: "waiting" }]);
    const again = last().outbox[0]!.key;
    await say(() => fake.put(again, "hello", "refused"));
    await say(() => last().cancel(again));
    expect(last().outbox).toEqual([]);
    expect(seen[0]!.send).toBe(last().send);
  });
});

describe("a client of a component", () => {
  it("is opened with it, closed with it, and none is left open by strict mode", async () => {
    const opened: FakeClient[] = [];
    vi.spyOn(Client, "open").mockImplementation(async () => {
      opened.push(new FakeClient());
      return opened.at(-1)!.client;
    });
    const session = {} as Session;
    const seen = await drawn(() => useConch(session));
    expect(seen.at(-1)!.client).toBe(opened.at(-1)!.client);
    expect(opened.map((it) => it.isClosed)).toEqual([true, false]);
    await act(async () => root.render(null));
    expect(opened.map((it) => it.isClosed)).toEqual([true, true]);
  });

  it("that cannot be opened says why", async () => {
    vi.spyOn(Client, "open").mockRejectedValue(new Error("there is no WebSocket here"));
    const session = {} as Session;
    const seen = await drawn(() => useConch(session));
    expect(seen.at(-1)).toMatchObject({ client: null, error: { message: "there is no WebSocket here" } });
  });

  it("of a session that ended is not shown with the next one", async () => {
    const opened: FakeClient[] = [];
    vi.spyOn(Client, "open").mockImplementation(async () => {
      opened.push(new FakeClient());
      return opened.at(-1)!.client;
    });
    const seen: (Client | null)[] = [];
    function Probe({ session }: { session: Session | null }): ReactNode {
      seen.push(useConch(session).client);
      return null;
    }
    const [one, two] = [{} as Session, {} as Session];
    await act(async () => root.render(<Probe session={one} />));
    expect(seen.at(-1)).toBe(opened[0]!.client);
    seen.length = 0;
    await act(async () => root.render(<Probe session={two} />));
    expect([seen[0], seen.at(-1)]).toEqual([null, opened[1]!.client]);
    expect(opened.map((it) => it.isClosed)).toEqual([true, false]);
    await act(async () => root.render(<Probe session={null} />));
    expect(seen.at(-1)).toBe(null);
  });
});
