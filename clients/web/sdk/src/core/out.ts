/** What the core wants done, gathered while inputs are handled and taken by the caller in one piece. */

import { encodeClientFrame, type ClientFrame } from "../wire/client-frame.js";
import type { Event, Message } from "./event.js";
import type { Persist } from "./persist.js";

/** Frames are gathered into WebSocket messages of about this size. */
const CHUNK_BYTES = 65_536;

/** What to do with connections. Inputs name the connection that they come from; those of an older one are ignored. */
export type LinkCommand =
  /** Get a token (a new one if `refreshToken`), open a transport, then say `connected`, `closed` or `token-rejected`. */
  | { do: "connect"; connection: number; refreshToken: boolean }
  /** Write what is queued, then close. */
  | { do: "close"; connection: number; code: number }
  /** Get a new token, then say `token-refreshed` or `token-rejected`. */
  | { do: "refresh-token"; connection: number };

/** How something that was asked with a ticket ended. */
export type Outcome =
  | { is: "loaded" }
  | { is: "at-start" }
  /** What was asked for, and is not stored. Empty: there is nothing. */
  | { is: "page"; messages: Message[] }
  | { is: "offline" }
  | { is: "refused"; code: number };

/** To be carried out in the order of the fields; `persist` durably and in one transaction before anything else. */
export interface Outputs {
  persist: Persist[];
  /** Whole frames for the connection that is open now; each element is one WebSocket message. */
  frames: Uint8Array<ArrayBuffer>[];
  link: LinkCommand[];
  answers: { ticket: number; outcome: Outcome }[];
  events: Event[];
}

export const noOutputs = (): Outputs => ({ persist: [], frames: [], link: [], answers: [], events: [] });

/** Gathers frames into WebSocket messages. */
export class FrameWriter {
  private frames: Uint8Array[] = [];

  put(frame: ClientFrame): void {
    this.frames.push(encodeClientFrame(frame));
  }

  take(): Uint8Array<ArrayBuffer>[] {
    const messages: Uint8Array<ArrayBuffer>[] = [];
    let open: Uint8Array[] = [];
    let bytes = 0;
    const close = (): void => {
      if (open.length === 0) return;
      const message = new Uint8Array(bytes);
      let at = 0;
      for (const frame of open) {
        message.set(frame, at);
        at += frame.length;
      }
      messages.push(message);
      open = [];
      bytes = 0;
    };
    for (const frame of this.frames) {
      if (bytes + frame.length > CHUNK_BYTES) close();
      open.push(frame);
      bytes += frame.length;
    }
    close();
    this.frames = [];
    return messages;
  }

  clear(): void {
    this.frames = [];
  }
}
