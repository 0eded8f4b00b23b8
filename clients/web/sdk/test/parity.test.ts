/** What the core has as the Rust SDK's has it: states of sends and when they are said, ranges, previews, who is in a channel. */

import { describe, expect, it } from "vitest";
import { Core } from "../src/core/core.js";
import { type Outputs, noOutputs } from "../src/core/out.js";
import { Marks } from "../src/core/marks.js";
import type { OutboxItem } from "../src/core/outbox.js";
import { type ChannelRow, type Persist, emptyMeta } from "../src/core/persist.js";
import { Code } from "../src/wire/codes.js";
import type { ServerFrame } from "../src/wire/server-frame.js";
import type { LogEvent, PendingAnswer } from "../src/wire/values.js";
import { clientFrames, encodeServerFrame, eventTail } from "./codec.js";

const ME = "1";
const ID = "9";
const row = (have: number): ChannelRow => ({
  channel: ID, kind: "group", title: "", peer: null, role: "member", firstSeq: 1, leftSeq: null, base: 1, have, head: have,
  marks: new Marks().row(), informedSeq: 1, listed: 0, used: 1,
});
const event = (seq: number, change: Partial<LogEvent> = {}): LogEvent => ({
  author: "2", seq, timeMs: 7, kind: 1, flags: 0, tail: new TextEncoder().encode(`words ${seq}`), ...change,
});
const members = (users: string[]): Uint8Array => eventTail({ channelKind: 2, members: users.map((user) => ({ user, role: "member" })) });
const key = (n: number): string => `${n}`.padStart(32, "0");

/** A device that is connected, holds `1 … have` of one channel, and has it open under alias 1. */
class Device {
  readonly core: Core;
  private now = 10;
  /** The last request. */
  asked = 0;
  /** What followed from being connected. */
  opened = noOutputs();

  constructor(have: number, outbox: OutboxItem[] = []) {
    this.core = new Core({ seed: 1 }, { meta: { ...emptyMeta(), user: ME, generation: 7 }, channels: [row(have)], outbox });
    this.core.takeOutputs();
  }

  online(have: number): this {
    this.core.handle(this.now, { is: "start" });
    this.core.handle(this.now, { is: "connected", connection: 1, token: "t", wallMs: 0 });
    this.core.takeOutputs();
    this.take({
      is: "welcome", minor: 0, features: "0", session: "101", user: ME, device: "5", timeMs: 0, generation: 7, inboxPosition: 0n, pending: [] as PendingAnswer[],
      resumed: true, node: "n", limits: { heartbeatMs: 0, silenceMaxMs: 0 },
    });
    const head = { channel: ID, headSeq: have, headOrdinal: have, readSeq: 0, readOrdinal: 0, mentions: 0 };
    this.opened = this.take({ is: "channel-opened", request: 0, alias: 1, head, kind: "group", title: "", peer: null, firstSeq: 1, resync: false });
    return this;
  }

  do(input: Parameters<Core["handle"]>[1]): Outputs {
    this.core.handle((this.now += 1), input);
    const out = this.core.takeOutputs();
    for (const frame of out.frames.flatMap((bytes) => clientFrames(bytes))) if ("request" in frame) this.asked = frame.request;
    return out;
  }

  take(frame: ServerFrame): Outputs {
    return this.do({ is: "received", connection: 1, bytes: encodeServerFrame(frame) });
  }

  push(...events: LogEvent[]): Outputs[] {
    return events.map((it) => this.take({ is: "pushed", alias: 1, event: it }));
  }

  send(n: number): Outputs {
    return this.do({ is: "send", channel: ID, key: key(n), kind: 1, flags: 0, tail: Uint8Array.of(65), createdMs: 5 });
  }
}

/** What is said of the outbox, in its order. */
const said = (out: Outputs): unknown[] => out.events.filter((it) => it.is === "outbox").map((it) => it.is === "outbox" && it.sending);
const stepsOf = (out: Outputs, what: string): Persist[] => out.persist.filter((it) => ("put" in it ? it.put : it.remove) === what);
const refusal = (request: number, code: number): ServerFrame => ({ is: "error", request, code, retryAfterMs: 50, refusedType: 3, item: 0, detail: "" });

describe("a message on its way", () => {
  it("is sending while its frame is under way, and waiting before and behind that; each is said, once an input", () => {
    const device = new Device(3);
    expect([said(device.send(1)), device.core.sending()]).toEqual([[[]], []]);
    device.online(3);
    expect([said(device.opened), device.core.sending()]).toEqual([[[key(1)]], [key(1)]]);
    // What gathers behind a frame waits for the next one.
    expect(said(device.send(2))).toEqual([[key(1)]]);
    const acked = device.take({ is: "send-ack", request: device.asked, acks: [{ seq: 4, timeMs: 8, flags: 0 }] });
    expect(said(acked)).toEqual([[key(2)]]);
    expect(acked.events.filter((it) => it.is === "send-stored")).toHaveLength(1);
    expect(said(device.take(refusal(device.asked, Code.rateLimited)))).toEqual([[]]);
    expect(device.core.sending()).toEqual([]);
  });

  it("is waiting again when the connection ends, however it ends, and sending once it went out again", () => {
    const device = new Device(3).online(3);
    expect(said(device.send(1))).toEqual([[key(1)]]);
    expect(said(device.do({ is: "closed", connection: 1, code: null }))).toEqual([[]]);
    expect(said(device.do({ is: "closed", connection: 1, code: null }))).toEqual([]);
    device.do({ is: "send", channel: "8", key: key(2), kind: 1, flags: 0, tail: new Uint8Array(1), createdMs: 5 });
    expect(device.core.sending()).toEqual([]);
  });

  it("that is refused, taken back or sent again is said to be another; its row tells where it stood", () => {
    const device = new Device(3).online(3);
    const first = device.send(1);
    expect(stepsOf(first, "outbox")).toMatchObject([{ item: { key: key(1), after: 3 } }]);
    const refused = device.take(refusal(device.asked, Code.forbidden));
    expect([said(refused), device.core.outboxItems()]).toMatchObject([[[]], [{ refused: Code.forbidden, after: 3 }]]);
    device.push(event(4), event(5));
    const again = device.do({ is: "retry", key: key(1), newKey: key(1), createdMs: 5 });
    expect([said(again), stepsOf(again, "outbox").at(-1)]).toMatchObject([[[key(1)]], { item: { key: key(1), after: 5 } }]);
    device.take(refusal(device.asked, Code.forbidden));
    expect(said(device.do({ is: "cancel", key: key(1) }))).toEqual([[]]);
    expect(said(device.do({ is: "cancel", key: key(1) }))).toEqual([]);
    // Of a channel that is not known there is no such place.
    const unknown = device.do({ is: "send", channel: "8", key: key(3), kind: 1, flags: 0, tail: new Uint8Array(1), createdMs: 5 });
    expect(stepsOf(unknown, "outbox")).not.toHaveProperty("0.item.after");
  });

  it("is sent from its ack until it has its place; both are said", () => {
    const device = new Device(3).online(3);
    device.send(1);
    const acked = device.take({ is: "send-ack", request: device.asked, acks: [{ seq: 5, timeMs: 8, flags: 0 }] });
    expect([said(acked), device.core.outboxItems()]).toMatchObject([[[]], [{ key: key(1), stored: { seq: 5 } }]]);
    const [placed] = device.push(event(4));
    expect([said(placed!), device.core.outboxItems()]).toEqual([[[]], []]);
    expect(said(device.push(event(6))[0]!)).toEqual([]);
  });

  it("that is sent again where its channel is not known any more has no place among the others", () => {
    const device = new Device(3).online(3);
    device.send(1);
    device.take(refusal(device.asked, Code.forbidden));
    device.do({ is: "closed", connection: 1, code: 4300 });
    device.do({ is: "retry", key: key(1), newKey: key(1), createdMs: 5 });
    expect(device.core.outboxItems()).toMatchObject([{ key: key(1) }]);
    expect(device.core.outboxItems()[0]).not.toHaveProperty("after");
  });

  it("leaves when its place is passed, or will not be reached: that is said", () => {
    const passed = new Device(5).online(5);
    passed.send(1);
    const out = passed.take({ is: "send-ack", request: passed.asked, acks: [{ seq: 4, timeMs: 8, flags: 1 }] });
    expect(out.events).toEqual(expect.arrayContaining([{ is: "send-gone", channel: ID, key: key(1) }, { is: "outbox", channel: ID, sending: [] }]));
    const { id, channel, kind, flags, tail, createdMs } = { id: 4, channel: ID, kind: 1, flags: 0, tail: Uint8Array.of(1), createdMs: 5 };
    const ahead = new Device(3, [{ id, channel, key: key(4), kind, flags, tail, createdMs, stored: { seq: 6, timeMs: 1 } }]);
    const stopped = ahead.do({ is: "start" });
    expect(stopped.events.some((it) => it.is === "send-gone")).toBe(false);
    const afresh = ahead.do({ is: "closed", connection: 1, code: 4300 });
    expect(afresh.events).toEqual(expect.arrayContaining([{ is: "send-gone", channel: ID, key: key(4) }, { is: "outbox", channel: ID, sending: [] }]));
    expect(ahead.core.outboxItems()).toEqual([]);
  });
});

describe("events that are only read", () => {
  const page = (request: number, from: number, to: number): ServerFrame => ({
    is: "history-page", request, channel: ID, generation: 7, coveredFrom: from, coveredTo: to, firstSeq: 1, headSeq: 9,
    events: Array.from({ length: to - from + 1 }, (_, i) => event(from + i)),
  });
  const ask = { is: "load-range", ticket: 5, channel: ID, from: 4, to: 9, items: 500 } as const;

  it("come oldest first, and are not stored; nothing is asked where there is nothing", () => {
    const device = new Device(3).online(3);
    const asked = device.do(ask);
    expect(asked.frames.flatMap((bytes) => clientFrames(bytes))).toMatchObject([{ is: "history", from: 4, to: 9, itemsMax: 200, newest: false }]);
    const out = device.take(page(device.asked, 4, 6));
    expect(out.answers).toMatchObject([{ ticket: 5, outcome: { is: "page", messages: [{ seq: 4 }, { seq: 5 }, { seq: 6, key: null, content: { text: "words 6" } }] } }]);
    expect(stepsOf(out, "message")).toEqual([]);
    const nothing = device.do({ ...ask, to: 3 });
    expect([nothing.answers, nothing.frames]).toEqual([[{ ticket: 5, outcome: { is: "page", messages: [] } }], []]);
  });

  it("are not to be had without a connection, nor over its end; the node's refusal is the answer", () => {
    const device = new Device(3);
    expect(device.do(ask).answers).toEqual([{ ticket: 5, outcome: { is: "offline" } }]);
    device.online(3);
    device.do(ask);
    expect(device.take({ ...refusal(device.asked, Code.forbidden), refusedType: 0x0e } as ServerFrame).answers).toEqual([
      { ticket: 5, outcome: { is: "refused", code: Code.forbidden } },
    ]);
    expect(device.do(ask).answers).toEqual([]);
    expect(device.do({ is: "closed", connection: 1, code: null }).answers).toEqual([{ ticket: 5, outcome: { is: "offline" } }]);
  });

  it("leave room for what else is asked", () => {
    const device = new Device(3).online(3);
    const answers = Array.from({ length: 8 }, (_, i) => device.do({ ...ask, ticket: i }).answers);
    expect(answers).toEqual([[], [], [], [], [], [], [], [{ ticket: 7, outcome: { is: "offline" } }]]);
  });
});

describe("the newest message of a channel", () => {
  it("is the newest that was placed, in 160 characters, and stays over a restart; rows of before have none", () => {
    const device = new Device(3).online(3);
    expect(device.core.channels()).toMatchObject([{ last: null }]);
    const [out] = device.push(event(4, { tail: new TextEncoder().encode("🐚".repeat(200)) }), event(5, { kind: 18, tail: members(["3"]) }));
    const last = { seq: 4, author: "2", timeMs: 7, kind: 1, text: "🐚".repeat(160) };
    expect(device.core.channels()).toMatchObject([{ last }]);
    const [step] = stepsOf(out!, "channel") as { put: "channel"; row: ChannelRow }[];
    expect(step!.row.last).toEqual(last);
    expect(new Core({}, { meta: emptyMeta(), channels: [step!.row], outbox: [] }).channels()).toMatchObject([{ last }]);
    device.push(event(6, { kind: 3, tail: Uint8Array.of(1) }));
    expect(device.core.channels()).toMatchObject([{ last: { seq: 6, kind: 3, text: "" } }]);
  });

  it("is that of an older page where nothing newer is here", () => {
    const device = new Device(3);
    device.core.known.get(ID)!.log.base = 3;
    device.online(3);
    device.do({ is: "load-older", ticket: 1, channel: ID, items: 10 });
    device.take({
      is: "history-page", request: device.asked, channel: ID, generation: 7, coveredFrom: 1, coveredTo: 2, firstSeq: 1, headSeq: 3, events: [event(1), event(2)],
    });
    expect(device.core.channels()).toMatchObject([{ last: { seq: 2 }, heldFrom: 1 }]);
    device.push(event(4));
    expect(device.core.channels()).toMatchObject([{ last: { seq: 4 } }]);
    device.core.known.get(ID)!.sawEvent(event(3));
    expect(device.core.channels()).toMatchObject([{ last: { seq: 4 } }]);
  });
});

describe("who is in a channel", () => {
  const list = [{ user: "1", role: "owner" as const, joinedSeq: 1, handle: "ada", displayName: "Ada" }];

  it("is the first event's list, moved on by those that follow", () => {
    const device = new Device(0).online(0);
    const outs = device.push(
      event(1, { kind: 16, tail: members(["1", "2"]) }), event(2), event(3, { kind: 17, tail: members(["3"]) }),
      event(4, { kind: 18, tail: members(["2"]) }), event(5, { kind: 19, tail: members(["3"]) }),
    );
    expect(outs.flatMap((out) => [...stepsOf(out, "members")])).toMatchObject([
      { put: "members", channel: ID, isAll: true, members: [{ user: "1", role: "member", joinedSeq: 1 }, { user: "2", joinedSeq: 1 }] },
      { put: "members", isAll: false, members: [{ user: "3", joinedSeq: 3 }] },
      { remove: "members", channel: ID, users: ["2"] },
      { remove: "members", users: ["3"] },
    ]);
  });

  it("is the node's list, unless somebody came or went since it was asked for", () => {
    const device = new Device(3).online(3);
    const kept = { put: "members", channel: ID, isAll: true, members: list };
    expect(device.do({ is: "keep-members", channel: ID, asOf: 3, members: list }).persist).toEqual([kept]);
    device.push(event(4), event(5, { kind: 17, tail: members(["3"]) }));
    expect(device.do({ is: "keep-members", channel: ID, asOf: 4, members: list }).persist).toEqual([]);
    expect(device.do({ is: "keep-members", channel: ID, asOf: 5, members: list }).persist).toEqual([kept]);
    expect(device.do({ is: "keep-members", channel: "404", asOf: 5, members: list }).persist).toEqual([]);
  });
});
