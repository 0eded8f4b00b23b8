/**
 * What was typed and not sent, kept with its conversation on this device: over switching, reload and log-in.
 *
 * In `localStorage`, one entry for each conversation; in memory where that is denied or full. Logging out by oneself forgets
 * all of them, and nothing is written any more by what is still open. One object for each client.
 */

import type { Id } from "@conch/sdk";

/** Longer texts stay in memory: there is not room for many of them. */
const KEPT_CHARS_MAX = 100_000;
/** Typing is not written down with every letter. */
const DELAY_MS = 300;

export class Drafts {
  private readonly texts = new Map<Id, string>();
  private readonly unsaved = new Set<Id>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly onHide = (): void => this.save();
  private isForgotten = false;

  constructor(private readonly user: Id) {
    addEventListener("pagehide", this.onHide);
    document.addEventListener("visibilitychange", this.onHide);
  }

  /** Writes down what is not yet, and listens to the page no longer. */
  end(): void {
    this.save();
    removeEventListener("pagehide", this.onHide);
    document.removeEventListener("visibilitychange", this.onHide);
  }

  private name(channel: Id): string {
    return `conch.draft:${this.user}:${channel}`;
  }

  get(channel: Id): string {
    const text = this.texts.get(channel);
    if (text !== undefined) return text;
    let stored = "";
    try {
      stored = localStorage.getItem(this.name(channel)) ?? "";
    } catch {
      // Denied: nothing is there.
    }
    this.texts.set(channel, stored);
    return stored;
  }

  set(channel: Id, text: string): void {
    this.texts.set(channel, text);
    this.unsaved.add(channel);
    clearTimeout(this.timer);
    // An empty field at once: what was sent must not come back as a draft.
    if (text === "") this.save();
    else this.timer = setTimeout(() => this.save(), DELAY_MS);
  }

  /** What could not be sent any more, behind what is there. */
  add(channel: Id, text: string): void {
    this.set(channel, [this.get(channel), text].filter(Boolean).join("\n"));
  }

  save(): void {
    clearTimeout(this.timer);
    if (this.isForgotten) return;
    for (const channel of this.unsaved) {
      const text = this.texts.get(channel) ?? "";
      try {
        if (text === "" || text.length > KEPT_CHARS_MAX) localStorage.removeItem(this.name(channel));
        else localStorage.setItem(this.name(channel), text);
      } catch {
        // Denied or full: it stays in memory.
      }
    }
    this.unsaved.clear();
  }

  /** On log-out: nothing of this person stays on the device. */
  forget(): void {
    this.isForgotten = true;
    clearTimeout(this.timer);
    this.unsaved.clear();
    this.texts.clear();
    try {
      for (const name of Object.keys(localStorage)) if (name.startsWith(this.name(""))) localStorage.removeItem(name);
    } catch {
      // Denied: nothing is there.
    }
  }
}
