/** A window on a channel, over a client of the test's own: what it shows where, and when it says that it is another. */

import { describe, expect, it } from "vitest";
import type { Client } from "../src/browser/client.js";
import type { ClientEvent, OutboxMessage } from "../src/browser/events.js";
import { View, type ViewItem } from "../src/browser/view.js";
import type { Message } from "../src/core/event.js";

const message = (seq: number, key: string | null): Message => ({
  channel: "1", seq, author: "7", timeMs: seq, key, content: { is: "text", text: `${seq}`, mentions: [] },
});
const own = (key: string, after: number, state: OutboxMessage["state"]): OutboxMessage => ({
  channel: "1", key, text: key, createdMs: 0, after, state, code: state === "refused" ? 4403 : null,
});
const words = (items: ViewItem[]): string[] =>
  items.map((it) => (it.is === "outbox" ? it.message.text : it.message.content.is === "text" ? it.message.content.text : "?"));
const range = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, i) => `${from + i}`);

/** Holds `from … to`, and has heard of `heard`. */
class Held {
  readonly listeners = new Set<(event: ClientEvent) => void>();
  readonly shown: string[] = [];
  outboxItems: OutboxMessage[] = [];
  keys = new Map<number, string>();

  constructor(public from: number, public to: number, public heard = to) {}

  get client(): Client {
    return this as unknown as Client;
  }
  on(listener: (event: ClientEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
  say(event: ClientEvent): void {
    for (const listener of this.listeners) listener(event);
  }
  async openChannel(channel: string): Promise<void> {
    this.shown.push(channel);
  }
  channelInfo() {
    return { heldTo: this.heard };
  }
  outbox(): OutboxMessage[] {
    return this.outboxItems;
  }
  async messages(_: string, limit: number, before = Infinity): Promise<Message[]> {
    const to = Math.min(this.to, before - 1);
    const from = Math.max(this.from, to - limit + 1);
    return range(from, to).map((seq) => message(Number(seq), this.keys.get(Number(seq)) ?? null));
  }
  async history(channel: string, before: number | null, items: number): Promise<Message[]> {
    this.from = Math.max(1, Math.min(this.from, (before ?? Infinity) - items));
    return this.messages(channel, items, before ?? Infinity);
  }
}

const open = (held: Held, items = 3): Promise<View> => View.open(held.client, "1", items);

describe("what it shows", () => {
  it("own messages stand in their places", async () => {
    const held = new Held(5, 8);
    held.outboxItems = [
      own("a", 3, "refused"), own("b", 4, "refused"), own("c", 6, "refused"), own("d", 6, "sending"), own("e", 8, "refused"),
      own("f", 8, "waiting"), own("g", Infinity, "refused"),
    ];
    const view = await open(held, 10);
    expect(held.shown).toEqual(["1"]);
    expect(words(await view.items())).toEqual(["b", "5", "6", "c", "7", "8", "d", "e", "f", "g"]);
  });

  it("a message that is seen in both is one", async () => {
    const held = new Held(4, 5);
    held.keys.set(5, "k");
    held.outboxItems = [own("k", 4, "sent")];
    expect(words(await (await open(held)).items())).toEqual(["4", "5"]);
  });

  it("its top stands while messages come in below, and moves up when older ones are asked for", async () => {
    const held = new Held(50, 60);
    const view = await open(held);
    expect(words(await view.items())).toEqual(range(58, 60));
    held.to = held.heard = 70;
    expect(words(await view.items())).toEqual(range(58, 70));
    expect(await view.older(20)).toBe(true);
    expect(words(await view.items())).toEqual(range(38, 70));
    expect([await view.older(100), await view.older(1)]).toEqual([true, false]);
    expect(words(await view.items())).toEqual(range(1, 70));
  });

  it("what is stored may be ahead of what this tab has heard of: nothing is missing from its top", async () => {
    const held = new Held(1, 60);
    const view = await open(held);
    await view.items();
    held.to = 75;
    expect(words(await view.items())).toEqual(range(58, 75));
  });

  it("holds at most 2,000 events: the oldest leave", async () => {
    const held = new Held(1, 100);
    const view = await open(held, 100);
    await view.items();
    held.to = held.heard = 2_050;
    expect(words(await view.items())).toEqual(range(51, 2_050));
  });

  it("begins anew where nothing is left of what it showed", async () => {
    const held = new Held(1, 60);
    const view = await open(held);
    await view.items();
    [held.from, held.to, held.heard] = [10, 20, 20];
    expect(words(await view.items())).toEqual(range(18, 20));
    [held.from, held.to, held.heard] = [1, 0, 0];
    expect(await view.items()).toEqual([]);
  });
});

describe("when it is another", () => {
  it("says so of its own channel, once it was looked at; not of what a look saw", async () => {
    const held = new Held(1, 5);
    const view = await open(held);
    held.say({ is: "outbox", channel: "1" });
    await view.items();
    let isOther = false;
    const changed = view.changed().then((it) => (isOther = it));
    for (const event of [{ is: "outbox", channel: "2" }, { is: "connection", state: { is: "online" } }, { is: "message", message: { ...message(9, null), channel: "2" } }] as const) held.say(event);
    await new Promise((resolve) => setTimeout(resolve));
    expect(isOther).toBe(false);
    held.say({ is: "message", message: message(6, null) });
    expect(await changed).toBe(true);
    // Not looked at since.
    expect(await view.changed()).toBe(true);
    for (const event of [
      { is: "outbox", channel: "1" }, { is: "skipped", channel: "1", from: 1, to: 2 }, { is: "channel-reset", channel: "1" }, { is: "changed" },
      { is: "channel", info: { channel: "1" } } as unknown as ClientEvent,
    ] as ClientEvent[]) {
      await view.items();
      const next = view.changed();
      held.say(event);
      expect(await next, event.is).toBe(true);
    }
  });

  it("a change during a look is none that it saw", async () => {
    const held = new Held(1, 5);
    const view = await open(held);
    const look = view.items();
    held.say({ is: "outbox", channel: "1" });
    await look;
    expect(await view.changed()).toBe(true);
  });

  it("ends with the client, and when it is closed: then it hears nothing", async () => {
    const held = new Held(1, 5);
    const [one, two] = [await open(held), await open(held)];
    const waits = [one.changed(), two.changed()];
    one.close();
    expect(held.listeners.size).toBe(1);
    held.say({ is: "closed" });
    expect(await Promise.all([...waits, one.changed(), two.changed()])).toEqual([false, false, false, false]);
    expect(held.listeners.size).toBe(0);
  });
});
