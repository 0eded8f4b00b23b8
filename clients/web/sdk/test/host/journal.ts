/**
 * The SDK's own store over an IndexedDB in memory, made to outlive its process: every batch of steps that the database took is
 * appended to a file, and a start replays the file. A process killed in the middle of a line has not told anybody of it.
 */

import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type Store, openStore } from "../../src/browser/store.js";
import type { Loaded, MemberRow, MessageRow, Persist } from "../../src/core/persist.js";
import type { Id } from "../../src/wire/values.js";

const packed = (_: string, value: unknown): unknown =>
  value instanceof Uint8Array ? { base64: Buffer.from(value).toString("base64") } : value;
const unpacked = (_: string, value: unknown): unknown => {
  const base64 = (value as { base64?: string } | null)?.base64;
  return base64 === undefined ? value : new Uint8Array(Buffer.from(base64, "base64"));
};

export class JournaledStore implements Store {
  readonly isPersistent = true;

  private constructor(
    private readonly inner: Store,
    private readonly file: number,
  ) {}

  static async open(folder: string): Promise<JournaledStore> {
    mkdirSync(folder, { recursive: true });
    const path = join(folder, "journal");
    const file = openSync(path, "a+");
    const whole = readFileSync(path, "utf8");
    const end = whole.lastIndexOf("\n") + 1;
    ftruncateSync(file, Buffer.byteLength(whole.slice(0, end)));
    const inner = await openStore("host");
    for (const line of whole.slice(0, end).split("\n")) if (line) await inner.apply(JSON.parse(line, unpacked) as Persist[]);
    return new JournaledStore(inner, file);
  }

  load(): Promise<Loaded> {
    return this.inner.load();
  }

  async apply(steps: Persist[]): Promise<void> {
    // As they are now: the core goes on with the objects.
    const line = JSON.stringify(steps, packed);
    await this.inner.apply(steps);
    writeSync(this.file, `${line}\n`);
  }

  messages(channel: Id, before: number, limit: number): Promise<MessageRow[]> {
    return this.inner.messages(channel, before, limit);
  }

  members(channel: Id): Promise<MemberRow[]> {
    return this.inner.members?.(channel) ?? Promise.resolve([]);
  }

  close(): void {
    this.inner.close();
    closeSync(this.file);
  }
}
