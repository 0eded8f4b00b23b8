/** The golden vectors: every one is decoded to its fields and encoded again, to the same bytes where the layout is fixed. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { encodeClientFrame } from "../src/wire/client-frame.js";
import { FrameError } from "../src/wire/error.js";
import { eventBody, messageText, serverFrames, type ServerFrame } from "../src/wire/server-frame.js";
import { fromHex, toHex } from "../src/wire/values.js";
import { decodeClientFrame, encodeServerFrame } from "./codec.js";

interface Vector {
  name: string;
  direction: "client" | "server";
  frame: string;
  hex: string;
  fields: Record<string, unknown>;
}

const vectors: Vector[] = JSON.parse(readFileSync(new URL("../../../../wire/vectors/frames.json", import.meta.url), "utf8"));
const server = vectors.filter((v) => v.direction === "server");
const client = vectors.filter((v) => v.direction === "client" && v.frame !== "unknown");
const TABLES = new Set(["HELLO", "AUTH_REFRESH", "SYNC", "WELCOME", "CHANNEL_OPENED", "SYNC_CHANGES", "ERROR", "GOAWAY", "AUTH_EXPIRING", "AUTH_REFRESHED"]);

function decode(bytes: Uint8Array): ServerFrame {
  const frames = [...serverFrames(bytes)];
  expect(frames).toHaveLength(1);
  return frames[0]!.frame;
}

/**
 * Every leaf of the vector's fields is somewhere in what was decoded, under its name in camel case. Fields of the vector are
 * nested by the structure of the document; ours is flatter, so names are looked up at any depth.
 */
function leaves(value: unknown, name: string, into: [string, string][]): void {
  if (value === null || name === "tail_text" || name === "body") return;
  if (value instanceof Uint8Array) into.push([name, toHex(value)]);
  else if (Array.isArray(value)) value.forEach((it) => leaves(it, name, into));
  else if (typeof value === "object") for (const [key, it] of Object.entries(value as object)) leaves(it, key, into);
  else into.push([name, String(value)]);
}

/** The others are those of the protocol, and not read. */
const READ_LIMITS = new Set(["heartbeat_ms", "silence_max_ms"]);
const RENAMED: Record<string, string> = { time: "time_ms", push: "push_mode", newest: "newest_first", type: "frame_type", is: "", state: "state" };
const CODES: Record<string, Record<string, string>> = {
  kind: { direct: "1", group: "2", self: "3" },
  role: { member: "1", admin: "2", owner: "3" },
  push_mode: { all: "0", opened: "1" },
  state: { unknown: "0", stored: "1", absent: "2" },
};

function flat(value: unknown): string[] {
  const found: [string, string][] = [];
  leaves(value, "", found);
  return found
    .map(([name, it]) => {
      const snake = name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
      const key = RENAMED[snake] ?? snake;
      return key === "" ? "" : `${key}=${CODES[key]?.[it] ?? it}`;
    })
    .filter((it) => it !== "")
    .sort();
}

describe("server vectors", () => {
  it.each(server.map((v) => [v.name, v] as const))("%s", (_, v) => {
    const bytes = fromHex(v.hex);
    const frame = decode(bytes);
    const again = encodeServerFrame(frame);
    expect(decode(again)).toEqual(frame);
    if (!TABLES.has(v.frame)) expect(toHex(again)).toBe(v.hex);
    const ours = new Set(flat(frame));
    const unread = new Set(Object.keys((v.fields["limits"] as object | undefined) ?? {}).filter((it) => !READ_LIMITS.has(it)));
    const isRead = (it: string): boolean => !unread.has(it.split("=")[0]!);
    const missing = flat(v.fields).filter((it) => isRead(it) && !ours.has(it) && !/^(features|session|device|user|node|sync_token)=0?$/.test(it));
    expect(missing).toEqual([]);
  });

  it("bodies of events and mentions are read", () => {
    const created = decode(fromHex(vectors.find((v) => v.name === "event_channel_created")!.hex));
    if (created.is !== "pushed") throw new Error("not an event");
    expect(eventBody(created.event.tail)).toEqual({
      channelKind: "group",
      title: "Harbour",
      members: [{ user: "4611686018427387905", role: "owner" }, { user: "7", role: "member" }],
    });
    const mention = decode(fromHex(vectors.find((v) => v.name === "deliver_with_mention")!.hex));
    if (mention.is !== "pushed") throw new Error("not a message");
    expect(messageText(mention.event.flags, mention.event.tail)).toEqual({ text: "@ben look", mentions: ["7"] });
  });
});

describe("client vectors", () => {
  it.each(client.map((v) => [v.name, v] as const))("%s", (_, v) => {
    const frame = decodeClientFrame(fromHex(v.hex))!;
    const again = encodeClientFrame(frame);
    expect(decodeClientFrame(again)).toEqual(frame);
    if (!TABLES.has(v.frame)) expect(toHex(again)).toBe(v.hex);
    const ours = new Set(flat(frame));
    // An empty token is left out of the frame.
    const missing = flat(v.fields).filter((it) => !ours.has(it) && !/^(features|minor)=/.test(it) && !/=$/.test(it));
    expect(missing).toEqual([]);
  });
});

describe("bytes that are not frames", () => {
  /** Reads a message to its end, the tails of events included. Anything but FrameError is a bug. */
  function read(bytes: Uint8Array): "read" | "refused" {
    try {
      for (const { frame } of serverFrames(bytes)) {
        if (frame.is !== "pushed") continue;
        if (frame.event.kind >= 16) eventBody(frame.event.tail);
        else messageText(frame.event.flags, frame.event.tail);
      }
      return "read";
    } catch (error) {
      if (error instanceof FrameError) return "refused";
      throw error;
    }
  }

  it("every cut and every changed byte of every vector is read or refused", () => {
    let refused = 0;
    for (const v of server) {
      const bytes = fromHex(v.hex);
      for (let length = 0; length < bytes.length; length++) expect(read(bytes.slice(0, length))).toBe("refused");
      for (let at = 0; at < bytes.length; at++) {
        for (const value of [0, 1, 0x7f, 0x80, 0xff, bytes[at]! ^ 1, bytes[at]! + 4]) {
          const changed = bytes.slice();
          changed[at] = value;
          if (read(changed) === "refused") refused += 1;
        }
      }
    }
    expect(refused).toBeGreaterThan(1_000);
  });

  it("random changes of several bytes", () => {
    let seed = 7;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff;
      return seed % below;
    };
    for (let round = 0; round < 20_000; round++) {
      const bytes = fromHex(server[random(server.length)]!.hex);
      for (let k = 0; k < 4 && bytes.length > 8; k++) bytes[8 + random(bytes.length - 8)] = random(256);
      read(bytes);
    }
  });

  it("a vector that claims more than the buffer holds is refused (P-008)", () => {
    const bytes = fromHex(vectors.find((v) => v.name === "sync_changes")!.hex);
    const view = new DataView(bytes.buffer);
    let refusals = 0;
    for (let at = 8; at + 4 <= bytes.length; at += 4) {
      const before = view.getUint32(at, true);
      view.setUint32(at, 0xffff_fff0, true);
      if (read(bytes) === "refused") refusals += 1;
      view.setUint32(at, before, true);
    }
    expect(refusals).toBeGreaterThan(0);
  });
});
