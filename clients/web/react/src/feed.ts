/**
 * What a client knows, as a store for `useSyncExternalStore`: a value that keeps its identity while nothing of it changes.
 *
 * Nothing is listened to while no component does. Without a listener the value is read anew each time, and with one only
 * after an event that concerns it.
 */

import type { Client, ClientEvent } from "@conch/sdk";

/** Same values in the same places. */
export function isSame<T>(a: T, b: T): boolean {
  if (Object.is(a, b)) return true;
  if (!Array.isArray(a) || !Array.isArray(b)) return false;
  return a.length === b.length && a.every((it, i) => Object.is(it, b[i]));
}

export class Feed<T> {
  private value: T | undefined;
  private isFresh = false;
  private readonly listeners = new Set<() => void>();
  private stop: (() => void) | null = null;

  constructor(
    private readonly client: Client,
    private readonly read: () => T,
    private readonly concerns: (event: ClientEvent) => boolean,
  ) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    if (!this.stop) {
      // What happened while nobody listened.
      this.isFresh = false;
      this.stop = this.client.on((event) => {
        if (!this.concerns(event)) return;
        this.isFresh = false;
        for (const it of this.listeners) it();
      });
    }
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size > 0) return;
      this.stop?.();
      this.stop = null;
    };
  };

  readonly get = (): T => {
    if (!this.isFresh) {
      const value = this.read();
      if (this.value === undefined || !isSame(this.value, value)) this.value = value;
      this.isFresh = this.stop !== null;
    }
    return this.value as T;
  };
}
