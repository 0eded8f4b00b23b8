/** Small halves of the core by themselves. */

import { Builder } from "flatbuffers";
import { describe, expect, it } from "vitest";
import { Backoff, Jitter } from "../src/core/backoff.js";
import { Core } from "../src/core/core.js";
import { Credit } from "../src/core/credit.js";
import { Heartbeat } from "../src/core/heartbeat.js";
import { Marks } from "../src/core/marks.js";
import { Log } from "../src/core/merge.js";
import { Outbox } from "../src/core/outbox.js";
import { emptyMeta } from "../src/core/persist.js";
import { place, skipTo } from "../src/core/placing.js";
import { Code, adviceOf } from "../src/wire/codes.js";
import { U64 } from "../src/generated/conch/u64.js";
import { Welcome } from "../src/generated/conch/welcome.js";
import type { ServerFrame } from "../src/wire/server-frame.js";
import type { PendingAnswer } from "../src/wire/values.js";
import { clientFrames, encodeServerFrame, frame } from "./codec.js";

const event = (seq: number) => ({
  event: { author: "1", seq, timeMs: 0, kind: 1, flags: 0, tail: new Uint8Array(5) },
  key: null,
  attempts: 0,
});
const item = (id: number, length = 4) => ({
  id, channel: "9", key: `${id}`.padStart(32, "0"), kind: 1, flags: 0, tail: new Uint8Array(length), createdMs: 0,
});
const outbox = (items: number): Outbox => {
  const box = new Outbox([]);
  for (let id = 1; id <= items; id++) box.push(item(id));
  return box;
};

describe("log", () => {
  it("an ack may come before the delivery below it (P-038)", () => {
    const log = new Log(1, 8, 8);
    log.arrive(event(10));
    expect(log.takeReady(() => false)).toEqual([]);
    expect(log.missing(1e9)).toEqual([9, 9]);
    log.arrive(event(9));
    expect(log.takeReady(() => false).map((it) => it.event.seq)).toEqual([9, 10]);
  });

  it("what is ahead is bounded, and fetched when its turn comes", () => {
    const log = new Log(1, 0, 0);
    for (let seq = 2; seq < 3_000; seq++) log.arrive(event(seq));
    expect(log.missing(1e9)).toEqual([1, 1]);
    log.arrive(event(1));
    expect(log.takeReady(() => false)).toHaveLength(1_024);
    expect(log.missing(1e9)).toEqual([1_025, 2_999]);
  });
});

describe("outbox", () => {
  it("one frame in flight per channel, what gathers goes into the next, at most 64 (P-035)", () => {
    const box = outbox(100);
    expect(box.nextFrame("9")).toHaveLength(64);
    expect(box.ready(0)).toEqual([]);
    box.onAck("9", Array.from({ length: 64 }, (_, i) => ({ seq: i + 1, timeMs: 0, flags: 0 })));
    expect(box.nextFrame("9")).toHaveLength(36);
  });

  it("a long message goes alone", () => {
    const box = new Outbox([]);
    box.push(item(1, 60_000));
    box.push(item(2, 60_000));
    expect(box.nextFrame("9")).toHaveLength(1);
  });

  it("every attempt but the first says RETRY, and so does what was on disk (P-030)", () => {
    const box = new Outbox([item(1)]);
    box.push(item(2));
    expect(box.nextFrame("9")!.map((it) => it.flags)).toEqual([2, 0]);
    box.onDisconnected();
    expect(box.nextFrame("9")!.map((it) => it.flags)).toEqual([2, 2]);
  });

  it("what is older than its key may live is given up, unless the node has it (P-029)", () => {
    const old = new Outbox([{ ...item(1), createdMs: 999 }, { ...item(2), createdMs: 1_000 }]);
    old.push({ ...item(3), createdMs: 5 });
    old.push({ ...item(4), createdMs: 2_000 });
    old.ask();
    const settled = old.onAnswers([{ state: "absent" }, { state: "absent" }], 1_000);
    expect(settled).toMatchObject([{ item: { id: 1 }, code: Code.outcomeUnknown }, { item: { id: 3 }, code: Code.outcomeUnknown }]);
    expect(old.nextFrame("9")!.map((it) => it.item.id)).toEqual([2, 4]);
    const stored = new Outbox([{ ...item(1), createdMs: 999 }]);
    stored.ask();
    expect(stored.onAnswers([{ state: "stored", seq: 4, timeMs: 7 }], 1_000)).toMatchObject([{ item: { id: 1 }, ack: { seq: 4 } }]);
    const unanswered = new Outbox([{ ...item(1), createdMs: 999 }]);
    expect(unanswered.onAnswers([], 1_000)).toHaveLength(1);
    expect([unanswered.size, unanswered.has(item(1).key)]).toEqual([0, false]);
  });

  it("a refusal drops its item and the rest goes again in order; an unknown outcome keeps all (P-033, P-034)", () => {
    const box = outbox(3);
    box.nextFrame("9");
    const refusal = box.onRefused("9", { code: Code.invalid, item: 1, retryAfterMs: 0 }, 0, new Jitter(1));
    expect(refusal).toMatchObject({ is: "dropped", settled: { item: { id: 2 }, code: Code.invalid } });
    expect(box.holds("9", 1)).toBe(false);
    expect(box.nextFrame("9")!.map((it) => it.item.id)).toEqual([1, 3]);
    box.onRefused("9", { code: Code.outcomeUnknown, item: 0, retryAfterMs: 0 }, 0, new Jitter(1));
    expect(box.holds("9", 2)).toBe(true);
  });

  it("what is refused stays until it is cancelled, takes room, and never goes out", () => {
    const box = new Outbox([{ ...item(5), refused: Code.invalid }, item(6)]);
    expect([box.size, box.nextId(), box.has(item(5).key)]).toEqual([2, 7, true]);
    expect(box.nextFrame("9")!.map((it) => it.item.id)).toEqual([6]);
    expect(box.keepRefused(item(7), Code.forbidden)).toMatchObject({ id: 7, refused: Code.forbidden });
    expect([...box.items()].map((it) => it.id)).toEqual([5, 7, 6]);
    expect(box.cancel(item(6).key)).toBe(null);
    box.push(item(8));
    expect([box.cancel(item(8).key)?.id, box.size]).toEqual([8, 3]);
    expect([box.cancel(item(5).key)?.id, box.cancel(item(5).key), box.size]).toEqual([5, null, 2]);
  });

  it("a long outbox in many channels goes out at the rate of the node's bucket, and is never taken for a flood", () => {
    const [perS, burst, count] = [10, 30, 3_000];
    const box = new Outbox([]);
    for (let id = 1; id <= count; id++) box.push({ ...item(id), channel: `${1 + (id % 7)}` });
    let [now, tokens, excess, last, sent] = [0, burst, 0, 0, 0];
    const jitter = new Jitter(3);
    const answer = (channel: string, items: number): void => {
      tokens = Math.min(burst, tokens + ((now - last) * perS) / 1_000);
      excess = Math.max(0, excess - (now - last) / 1_000);
      last = now;
      if (tokens >= items) {
        tokens -= items;
        sent += items;
        box.onAck(channel, Array.from({ length: items }, () => ({ seq: 1, timeMs: 0, flags: 0 })));
      } else {
        excess += 1;
        const retryAfterMs = Math.ceil(((Math.min(items, burst) - tokens) / perS) * 1_000);
        box.onRefused(channel, { code: Code.rateLimited, item: 0, retryAfterMs }, now, jitter);
      }
    };
    while (sent < count && now < 10_000_000) {
      const frames = box.ready(now).map((channel) => [channel, box.nextFrame(channel)?.length ?? 0] as const).filter(([, items]) => items > 0);
      now += 5;
      for (const [channel, items] of frames) answer(channel, items);
      expect(excess).toBeLessThan(50);
      if (frames.length === 0) now = Math.max(now, Math.min(box.nextAt(), now + 60_000));
    }
    expect(sent).toBe(count);
    expect(now).toBeLessThan((count / perS) * 1_000 * 1.5);
  });

  it("a refusal says nothing of an earlier attempt", () => {
    const box = outbox(1);
    box.nextFrame("9");
    box.onDisconnected();
    box.nextFrame("9");
    box.onRefused("9", { code: Code.rateLimited, item: 0, retryAfterMs: 0 }, 0, new Jitter(1));
    expect(box.holds("9", box.attempts)).toBe(true);
  });
});

describe("numbers", () => {
  it("the ceiling of delays doubles up to its cap, advice is a lower bound (P-057)", () => {
    const jitter = new Jitter(7);
    const backoff = new Backoff(500, 30_000);
    for (const ceiling of [500, 1_000, 2_000, 4_000]) expect(backoff.failed(0, jitter)).toBeLessThanOrEqual(ceiling);
    expect(backoff.failed(5_000, jitter)).toBeGreaterThanOrEqual(5_000);
  });

  it("credit is granted again once half is used (P-050)", () => {
    const credit = new Credit(1_000);
    expect([credit.pushed(499), credit.pushed(1), credit.pushed(900)]).toEqual([0, 500, 900]);
  });

  it("pings on the beat, gives up after silence, and soon after a probe without answer (P-052, P-053)", () => {
    const beat = new Heartbeat(0);
    expect(beat.due(24_999)).toBe(null);
    expect(beat.due(25_000)).toBe(1);
    expect(beat.due(45_000)).toBe("dead");
  });

  it("a probe has four seconds; only its answer counts, or what comes a second later; asking again does not put it off", () => {
    const probed = (): Heartbeat => {
      const beat = new Heartbeat(0);
      beat.probe(10_000);
      expect(beat.due(10_000)).toBe(1);
      return beat;
    };
    const silent = probed();
    silent.heard(10_500);
    silent.probe(13_000);
    expect(silent.due(13_000)).toBe(2);
    expect(silent.nextAt()).toBe(14_000);
    expect(silent.due(14_000)).toBe("dead");
    const answered = probed();
    answered.answered(7);
    expect(answered.nextAt()).toBe(14_000);
    answered.answered(1);
    expect(answered.due(14_000)).toBe(null);
    const alive = probed();
    alive.heard(11_000);
    expect(alive.due(14_000)).toBe(null);
  });

  it("what was asked and is not answered within ten seconds probes the connection, unless something else comes", () => {
    const beat = new Heartbeat(0);
    beat.waits(1_000, true);
    beat.waits(2_000, true);
    expect(beat.nextAt()).toBe(11_000);
    expect(beat.due(11_000)).toBe(1);
    expect(beat.due(15_000)).toBe("dead");
    const slow = new Heartbeat(0);
    slow.waits(1_000, true);
    slow.heard(9_000);
    slow.waits(9_000, true);
    expect(slow.due(11_000)).toBe(null);
    slow.waits(12_000, false);
    expect(slow.nextAt()).toBe(25_000);
  });

  it("marks never go back, own messages move them, a wanted one is shown at once", () => {
    const marks = new Marks();
    const head = { channel: "1", headSeq: 9, headOrdinal: 9, readSeq: 2, readOrdinal: 2, mentions: 0 };
    marks.onHead(head);
    expect([marks.want(9), marks.want(9), marks.unread()]).toEqual([true, false, 0]);
    marks.onPlaced(10, true, false);
    expect(marks.unread()).toBe(1);
    marks.onPlaced(11, true, true);
    expect([marks.unread(), marks.wanted]).toEqual([0, 0]);
    marks.onHead(head);
    expect(marks.headSeq).toBe(11);
    marks.onSkipped(20);
    expect([marks.uncounted, Marks.load(marks.row()).uncounted]).toEqual([true, true]);
    marks.onHead({ ...head, headSeq: 19, headOrdinal: 12 });
    expect(marks.uncounted).toBe(true);
    marks.onHead({ ...head, headSeq: 21, headOrdinal: 17 });
    expect([marks.uncounted, marks.unread()]).toEqual([false, 6]);
  });

  it("hundreds decide", () => {
    expect([4100, 4200, 4300, 4402, 4501, 4502, 4600, 1006].map(adviceOf)).toEqual([
      "retry-here", "resume", "afresh", "fix-request", "authenticate", "resume", "stop", "resume",
    ]);
  });
});

describe("connection", () => {
  it("says HELLO once the transport is open, gives up a handshake, and comes back", () => {
    const core = new Core({ seed: 3 });
    core.handle(0, { is: "start" });
    expect(core.takeOutputs().link).toEqual([{ do: "connect", connection: 1, refreshToken: false }]);
    core.handle(10, { is: "connected", connection: 1, token: "t", wallMs: 0 });
    expect(clientFrames(core.takeOutputs().frames[0]!)).toMatchObject([{ is: "hello", token: "t", cursors: [], replaces: null }]);
    core.handle(15_000, { is: "tick" });
    expect(core.takeOutputs().link[0]).toMatchObject({ do: "close", connection: 1 });
    core.handle(core.wakeAt(), { is: "tick" });
    expect(core.takeOutputs().link).toMatchObject([{ do: "connect", connection: 2 }]);
  });

  it("a close decides: a new token, the end, or nothing but another attempt (P-056)", () => {
    for (const [code, expected] of [[4501, "offline"], [4600, "stopped"], [4204, "stopped"], [4426, "stopped"], [null, "offline"]] as const) {
      const core = new Core({});
      core.handle(0, { is: "start" });
      core.takeOutputs();
      core.handle(1, { is: "closed", connection: 1, code });
      expect(core.takeOutputs().events).toMatchObject([{ is: "connection", state: { is: expected } }]);
      if (code !== 4501) continue;
      core.handle(core.wakeAt(), { is: "tick" });
      expect(core.takeOutputs().link).toMatchObject([{ do: "connect", refreshToken: true }]);
    }
  });

  it("bytes that are no frame cost the connection, not the program", () => {
    const core = new Core({});
    core.handle(0, { is: "start" });
    core.handle(1, { is: "connected", connection: 1, token: "t", wallMs: 0 });
    core.takeOutputs();
    core.handle(2, { is: "received", connection: 1, bytes: Uint8Array.of(1, 2, 3) });
    expect(core.takeOutputs().link).toEqual([{ do: "close", connection: 1, code: Code.badFrame }]);
  });
});

describe("a message that is stored ahead of its place", () => {
  it("keeps its row over a restart until it is placed, and has its key then", () => {
    const row = {
      channel: "9", kind: "group", title: "", peer: null, role: "member", firstSeq: 1, leftSeq: null, base: 1, have: 3, head: 5,
      marks: new Marks().row(), informedSeq: 1, listed: 0, used: 1,
    } as const;
    const stored = { ...item(4), stored: { seq: 5, timeMs: 7 } };
    const core = new Core({}, { meta: { ...emptyMeta(), user: "1" }, channels: [row], outbox: [stored, { ...item(6), stored: { seq: 2, timeMs: 1 } }] });
    // The place of the other one is passed.
    expect(core.takeOutputs().persist).toEqual([{ remove: "outbox", id: 6 }]);
    expect(core.outboxItems()).toEqual([stored]);
    core.known.get("9")!.log.arrive({ event: { ...event(4).event, author: "2" }, key: null, attempts: 0 });
    place(core, 0, "9");
    const out = core.takeOutputs();
    expect(out.persist.map((step) => ("put" in step ? step.put : step.remove))).toEqual(["message", "outbox", "message"]);
    expect(out.events).toMatchObject([{ message: { seq: 4, key: null } }, { message: { seq: 5, key: stored.key } }]);
    expect(core.outboxItems()).toEqual([]);
  });
});

describe("a channel that was opened", () => {
  const row = (have: number) => ({
    channel: "9", kind: "group", title: "", peer: null, role: "member", firstSeq: 1, leftSeq: null, base: 1, have, head: have,
    marks: { ...new Marks().row(), headSeq: have, headOrdinal: have, readSeq: have, readOrdinal: have }, informedSeq: 1, listed: 0, used: 1,
  }) as const;
  const welcome = {
    is: "welcome" as const, minor: 0, features: "0", session: "101", user: "1", device: "5", timeMs: 0, generation: 7, inboxPosition: 0n, pending: [] as PendingAnswer[],
    resumed: true, node: "n",
    limits: { heartbeatMs: 0, silenceMaxMs: 0 },
  } satisfies ServerFrame;
  const head = (headSeq: number, headOrdinal: number) => ({ channel: "9", headSeq, headOrdinal, readSeq: 3, readOrdinal: 3, mentions: 0 });
  const opened = (request: number, alias: number, firstSeq: number, at: ReturnType<typeof head>) =>
    ({ is: "channel-opened", request, alias, head: at, kind: "group", title: "", peer: null, firstSeq, resync: false }) as const;
  function online(have: number, heldEventsMax = 200) {
    const core = new Core({ seed: 1, heldEventsMax }, { meta: { ...emptyMeta(), user: "1", generation: 7 }, channels: [row(have)], outbox: [] });
    core.handle(0, { is: "start" });
    core.handle(1, { is: "connected", connection: 1, token: "t", wallMs: 0 });
    core.takeOutputs();
    const take = (...frames: ServerFrame[]) => {
      for (const it of frames) core.handle(2, { is: "received", connection: 1, bytes: encodeServerFrame(it) });
      return core.takeOutputs();
    };
    return { core, take };
  }
  const pushed = (seq: number) => ({ is: "pushed", alias: 1, event: { ...event(seq).event, author: "2" } }) as const;

  it("where messages were passed over unseen, the node is asked how many there are, until its answer covers ours", () => {
    const { core, take } = online(3);
    // Away for a while: what lies between is not ours, and the head that was said is older than where it goes on.
    take(welcome, opened(0, 1, 1, head(3, 3)));
    skipTo(core, "9", 8);
    core.handle(3, { is: "tick" });
    const [asked] = core.takeOutputs().frames.flatMap((bytes) => clientFrames(bytes)).filter((it) => it.is === "open-channel");
    expect(asked).toMatchObject({ cursor: { channel: "9", generation: 0, seq: 0 } });
    // A message takes its place before the answer, which does not know of it: asked again.
    const again = take(pushed(8), opened(asked!.request, 1, 8, head(7, 5))).frames.flatMap((bytes) => clientFrames(bytes));
    const next = again.find((it) => it.is === "open-channel")!;
    take(opened(next.request, 1, 8, head(8, 6)));
    expect(core.channels()).toMatchObject([{ unread: 3 }]);
    core.handle(4, { is: "tick" });
    expect(core.takeOutputs().frames).toEqual([]);
  });

  it("holds its newest events while nobody looks at it, and all that was loaded while somebody does", () => {
    const shown = online(1_000);
    shown.core.handle(2, { is: "open", channel: "9" });
    expect(shown.take(welcome).persist.filter((it) => "remove" in it)).toEqual([]);
    expect(shown.core.channels()).toMatchObject([{ heldFrom: 1, heldTo: 1_000 }]);
    shown.core.handle(3, { is: "close", channel: "9" });
    expect(shown.core.takeOutputs().persist.filter((it) => "remove" in it)).toEqual([]);

    const { core, take } = online(1_000);
    expect(take(welcome, opened(0, 1, 1, head(1_000, 1_000))).persist).toContainEqual({ remove: "older-messages", channel: "9", below: 801 });
    expect(core.channels()).toMatchObject([{ heldFrom: 801, heldTo: 1_000 }]);
    // What was read back is let go of with the next connection.
    const read = online(300);
    read.core.handle(2, { is: "open", channel: "9" });
    read.core.handle(3, { is: "close", channel: "9" });
    expect(read.take(welcome).persist).toContainEqual({ remove: "older-messages", channel: "9", below: 101 });
    const grown = take(...Array.from({ length: 201 }, (_, i) => pushed(1_001 + i)));
    expect(grown.persist.filter((it) => "remove" in it)).toEqual([{ remove: "older-messages", channel: "9", below: 1_002 }]);
    expect(core.channels()).toMatchObject([{ heldFrom: 1_002, heldTo: 1_201 }]);
  });

  it("a connection on which a question stays unanswered is probed, and given up unless it answers that", () => {
    for (const answers of [true, false]) {
      const { core, take } = online(3);
      take({ ...welcome, inboxPosition: 0n }, opened(0, 1, 1, head(3, 3)), { is: "sync-changes", request: 0, reset: false, more: false, rows: [], token: Uint8Array.of(1) });
      core.known.get("9")!.log.base = 3;
      core.handle(1_000, { is: "load-older", ticket: 5, channel: "9", items: 10 });
      core.takeOutputs();
      core.handle(11_000, { is: "tick" });
      const [ping] = core.takeOutputs().frames.flatMap((bytes) => clientFrames(bytes));
      expect(ping).toMatchObject({ is: "ping" });
      if (ping?.is !== "ping") throw new Error("no ping");
      if (answers) core.handle(11_500, { is: "received", connection: 1, bytes: encodeServerFrame({ is: "pong", nonce: ping.nonce, inboxPosition: 0n }) });
      core.takeOutputs();
      core.handle(15_000, { is: "tick" });
      const { link, answers: told } = core.takeOutputs();
      expect(link).toEqual(answers ? [] : [{ do: "close", connection: 1, code: Code.idleTimeout }]);
      expect(told).toEqual(answers ? [] : [{ ticket: 5, outcome: { is: "offline" } }]);
    }
  });

  it("marks that follow each other fast are told as one", () => {
    const { core, take } = online(3);
    take(welcome, opened(0, 1, 1, head(3, 3)), ...[4, 5, 6].map(pushed));
    const reads = (): unknown[] => core.takeOutputs().frames.flatMap((bytes) => clientFrames(bytes)).filter((it) => it.is === "read");
    for (const seq of [4, 5, 6]) core.handle(10, { is: "mark-read", channel: "9", seq });
    expect(reads()).toMatchObject([{ seq: 4 }]);
    expect(core.wakeAt()).toBe(510);
    core.handle(510, { is: "tick" });
    expect(reads()).toMatchObject([{ seq: 6 }]);
  });
});

describe("a node of a newer minor version", () => {
  const SKIPPABLE = frame(0xb7, 9, Uint8Array.of(1, 2, 3));

  /** As this version's, with a higher minor, a feature nobody asked for, two more fields, and a limit more. */
  function newerWelcome(): Uint8Array {
    const b = new Builder(64);
    const motto = b.createString("field of a version to come");
    b.startObject(15);
    for (let id = 0; id < 15; id++) b.addFieldInt32(id, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25_000, 45_000, 7][id]!, 0);
    const limits = b.endObject();
    b.startObject(14);
    Welcome.addMinor(b, 9);
    Welcome.addFeatures(b, U64.createU64(b, 1, 0));
    for (const add of [Welcome.addSession, Welcome.addUser, Welcome.addDevice, Welcome.addTime, Welcome.addInboxPosition]) {
      add(b, U64.createU64(b, 5, 0));
    }
    Welcome.addGeneration(b, 1);
    Welcome.addLimits(b, limits);
    b.addFieldOffset(12, motto, 0);
    b.addFieldInt32(13, 4711, 0);
    b.finish(b.endObject());
    return frame(0x21, 0, b.asUint8Array());
  }

  function newerError(request: number, code: number): Uint8Array {
    const b = new Builder(64);
    b.startObject(7);
    b.addFieldInt16(0, code, 0);
    b.addFieldInt32(6, 1, 0);
    b.finish(b.endObject());
    return frame(0x2d, request, b.asUint8Array());
  }

  function online(): { core: Core; take(bytes: Uint8Array): ReturnType<Core["takeOutputs"]> } {
    const core = new Core({ seed: 1 });
    core.handle(0, { is: "start" });
    core.handle(1, { is: "connected", connection: 1, token: "t", wallMs: 0 });
    core.takeOutputs();
    const take = (bytes: Uint8Array) => {
      core.handle(2, { is: "received", connection: 1, bytes });
      return core.takeOutputs();
    };
    expect(take(SKIPPABLE).link).toEqual([]);
    expect(take(newerWelcome()).events).toContainEqual({ is: "connection", state: { is: "online" } });
    return { core, take };
  }

  it("its frames with bit 7 are skipped, its fields ignored; without bit 7 it costs the connection (P-005)", () => {
    const { take } = online();
    expect(take(SKIPPABLE)).toMatchObject({ link: [], events: [] });
    expect(take(frame(0x37, 0, Uint8Array.of()))).toMatchObject({ link: [{ do: "close", code: Code.badFrame }] });
  });

  it("its codes act by their hundreds, on a request and as a close", () => {
    for (const [code, expected] of [[4177, "sends-delayed"], [4477, "send-refused"], [4677, "send-refused"]] as const) {
      const { core, take } = online();
      core.handle(2, { is: "send", channel: "9", key: "a".repeat(32), kind: 1, flags: 0, tail: new Uint8Array(1), createdMs: 0 });
      const open = clientFrames(core.takeOutputs().frames[0]!).find((it) => it.is === "open-channel")!;
      const head = { channel: "9", headSeq: 0, headOrdinal: 0, readSeq: 0, readOrdinal: 0, mentions: 0 };
      const opened = { is: "channel-opened", request: open.request, alias: 1, head, kind: "group", title: "", peer: null, firstSeq: 1, resync: false } as const;
      const sent = clientFrames(take(encodeServerFrame(opened)).frames[0]!).find((it) => it.is === "send")!;
      expect(take(newerError(sent.request, code)).events.filter((it) => it.is !== "channel" && it.is !== "outbox")).toMatchObject([{ is: expected, code }]);
    }
    for (const [code, expected] of [[4277, "offline"], [4377, "offline"], [4577, "offline"], [4677, "stopped"], [4977, "offline"]] as const) {
      const { core } = online();
      core.handle(3, { is: "closed", connection: 1, code });
      expect(core.takeOutputs().events).toContainEqual(expect.objectContaining({ state: expect.objectContaining({ is: expected }) }));
    }
  });
});
