/**
 * Bounds of a FlatBuffers table, checked before anything is read from it.
 *
 * The runtime's accessors trust the buffer: past its end they read zeros, and a wild vector length makes a loop without end.
 * So every table that comes from a node passes `checkTable` first; after that no accessor leaves the buffer and no loop is
 * longer than the buffer. What this does not do: check UTF-8 or values.
 */

import { FrameError } from "./error.js";

/** The shape of one field, by what it takes inline and where it points. */
export type Field =
  | { is: "inline"; bytes: number; required?: true }
  | { is: "vector"; bytes: number; required?: true }
  | { is: "table"; of: Shape; required?: true }
  | { is: "tables"; of: Shape; required?: true }
  | { is: "strings"; required?: true };

/** Fields by id. */
export type Shape = readonly Field[];

/** As the node's own verifier (P-007). */
const DEPTH_MAX = 8;
const TABLES_MAX = 4096;

class Checker {
  private readonly view: DataView;
  private tables = 0;

  constructor(bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  root(shape: Shape): void {
    this.table(this.target(0), shape, 0);
  }

  private need(at: number, bytes: number): void {
    if (at < 0 || at + bytes > this.view.byteLength) throw new FrameError("a table reaches beyond its buffer");
  }

  private u16(at: number): number {
    this.need(at, 2);
    return this.view.getUint16(at, true);
  }

  private u32(at: number): number {
    this.need(at, 4);
    return this.view.getUint32(at, true);
  }

  /** Where an offset field points: always forwards, so that no cycle exists. */
  private target(at: number): number {
    const offset = this.u32(at);
    if (offset === 0) throw new FrameError("an offset points to itself");
    const target = at + offset;
    this.need(target, 4);
    return target;
  }

  private vector(at: number, elementBytes: number): number {
    const items = this.u32(at);
    this.need(at + 4, items * elementBytes);
    return items;
  }

  private table(at: number, shape: Shape, depth: number): void {
    this.tables += 1;
    if (depth > DEPTH_MAX || this.tables > TABLES_MAX) throw new FrameError("tables are nested too deep or too many");
    this.need(at, 4);
    const vtable = at - this.view.getInt32(at, true);
    const vtableBytes = this.u16(vtable);
    const tableBytes = this.u16(vtable + 2);
    if (vtableBytes < 4) throw new FrameError("a table has no vtable");
    this.need(vtable, vtableBytes);
    this.need(at, tableBytes);
    shape.forEach((field, id) => {
      const slot = 4 + 2 * id;
      const offset = slot + 2 <= vtableBytes ? this.u16(vtable + slot) : 0;
      if (offset === 0) {
        if (field.required) throw new FrameError("a required field is missing");
        return;
      }
      if (offset + (field.is === "inline" ? field.bytes : 4) > tableBytes) throw new FrameError("a field lies outside its table");
      this.field(at + offset, field, depth);
    });
  }

  private field(at: number, field: Field, depth: number): void {
    switch (field.is) {
      case "inline":
        return;
      case "vector":
        this.vector(this.target(at), field.bytes);
        return;
      case "table":
        this.table(this.target(at), field.of, depth + 1);
        return;
      case "tables":
      case "strings": {
        const vector = this.target(at);
        const items = this.vector(vector, 4);
        for (let i = 0; i < items; i++) {
          const element = this.target(vector + 4 + 4 * i);
          if (field.is === "strings") this.vector(element, 1);
          else this.table(element, field.of, depth + 1);
        }
      }
    }
  }
}

/** Throws {@link FrameError} unless `bytes` hold one table of this shape, whole. */
export function checkTable(bytes: Uint8Array, shape: Shape): void {
  new Checker(bytes).root(shape);
}

const u8: Field = { is: "inline", bytes: 1 };
const u16: Field = { is: "inline", bytes: 2 };
const u32: Field = { is: "inline", bytes: 4 };
const u64: Field = { is: "inline", bytes: 8 };
const text: Field = { is: "vector", bytes: 1 };
const structs = (bytes: number): Field => ({ is: "vector", bytes });
const required = <F extends Field>(field: F): F => ({ ...field, required: true });
const head = required<Field>({ is: "inline", bytes: 28 });

const limits: Shape = new Array<Field>(14).fill(u32);
const syncRow: Shape = [head, u8, u8, u32, text, u64, u32];

/** The tables of `wire/schema/conch.fbs`, in the order of their field ids. */
export const shapes = {
  hello: [u16, u64, required(text), text, text, structs(20), structs(24), u64, u32, u8],
  authRefresh: [required(text)],
  sync: [text, u16],
  welcome: [
    u16, u64, required(u64), required(u64), required(u64), required(u64), u32, required(u64),
    required<Field>({ is: "table", of: limits }), structs(12), u8, text,
  ],
  channelOpened: [u32, head, u8, text, u64, u32, u8],
  syncChanges: [u8, u8, { is: "tables", of: syncRow }, text],
  error: [u16, u32, u8, u16, text],
  goaway: [u16, u32, u32, { is: "strings" }],
  authExpiring: [u32],
  authRefreshed: [u32],
  eventBody: [u8, text, structs(12)],
  messageBody: [structs(8)],
} satisfies Record<string, Shape>;
