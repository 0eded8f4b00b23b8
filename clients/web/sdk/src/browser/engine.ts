/**
 * The driver: carries out what the core wants with a WebSocket, a store and a timer. One per account and device; among tabs,
 * the leader has it.
 *
 * Outputs are carried out in order, each after its steps are stored; outputs that gather while a transaction runs go into
 * the next one together. A store that fails ends the connection: nothing is acknowledged, shown or sent that could not be kept.
 */

import { Core, type Command, type Config, type Input } from "../core/core.js";
import type { Event } from "../core/event.js";
import type { LinkCommand, Outcome, Outputs } from "../core/out.js";
import type { OutboxItem } from "../core/outbox.js";
import type { Loaded } from "../core/persist.js";
import { isProtocolCode } from "../wire/codes.js";
import type { Id } from "../wire/values.js";
import { ApiError } from "./api.js";
import type { Session } from "./session.js";
import type { Store } from "./store.js";
import type { Timer } from "./timer.js";

/** What tabs hear: the core's events, and what they must know of each other and of the store. */
export type EngineEvent =
  | Event
  /** The outbox has one more. */
  | { is: "queued"; item: OutboxItem }
  /** A tab shows this channel no longer; one that still does says so. */
  | { is: "view-closed"; channel: Id }
  | { is: "storage-failed"; isFull: boolean };

const SUBPROTOCOL = "conch.1";
/** `WebSocket.OPEN`. */
const OPEN = 1;
/** The session is over, by these codes of a refresh. */
const OVER = new Set(["unauthenticated", "token_expired", "device_revoked", "account_closed"]);

interface Batch {
  out: Outputs;
  stored: () => void;
  failed: (error: unknown) => void;
}

export const cannotStore = (): ApiError => new ApiError("storage", 0, "messages cannot be stored on this device", 0);

export class Engine {
  readonly core: Core;
  private socket: WebSocket | null = null;
  private token: string | undefined;
  private readonly batches: Batch[] = [];
  private isRunning = false;
  /** The store failed: nothing goes on. What it holds is where the next engine begins. */
  hasFailed = false;
  private lastTicket = 0;
  private readonly tickets = new Map<number, (outcome: Outcome) => void>();

  constructor(
    private readonly session: Session,
    private readonly store: Store,
    private readonly timer: Timer,
    loaded: Loaded,
    config: Partial<Config>,
    private readonly emit: (events: EngineEvent[]) => void,
    private readonly webSocket: typeof WebSocket,
  ) {
    this.core = new Core({ seed: crypto.getRandomValues(new Int32Array(1))[0]!, ...config }, loaded);
  }

  /** Deals with an input; resolves when what it changed is stored and carried out. */
  input(input: Input): Promise<void> {
    if (this.hasFailed) return Promise.reject(cannotStore());
    this.core.handle(this.timer.now(), input);
    const out = this.core.takeOutputs();
    if (input.is === "send" || input.is === "retry") {
      const at = out.persist.find((step) => "put" in step && step.put === "outbox");
      const queued = at && "put" in at && at.put === "outbox" ? [{ is: "queued", item: at.item } as const] : [];
      // Its ack cannot be here before; what it takes the place of goes first.
      const first = out.events.findIndex((event) => event.is === "send-gone") + 1;
      (out.events as EngineEvent[]).splice(first, 0, ...queued);
    }
    const carriedOut = new Promise<void>((stored, failed) => this.batches.push({ out, stored, failed }));
    if (!this.isRunning) void this.run();
    this.timer.set(this.core.wakeAt(), () => void this.input({ is: "tick" }).catch(() => {}));
    return carriedOut;
  }

  /** A command of any tab. A message that came before, from a tab that did not hear of it, is not taken twice. */
  async command(command: Command): Promise<Outcome | null> {
    if (command.is === "send") {
      if (this.core.outboxItems().some((it) => it.key === command.key)) return null;
      if (!this.core.outboxRoom()) throw new ApiError("outbox_full", 0, "too many messages wait to be sent", 0);
    }
    if (!("ticket" in command)) {
      await this.input(command);
      if (command.is === "close") this.emit([{ is: "view-closed", channel: command.channel }]);
      return null;
    }
    this.lastTicket += 1;
    const ticket = this.lastTicket;
    const answered = new Promise<Outcome>((resolve) => this.tickets.set(ticket, resolve));
    await this.input({ ...command, ticket });
    return answered;
  }

  /** Says goodbye; resolves when everything is stored. */
  async stop(): Promise<void> {
    if (!this.hasFailed) await this.input({ is: "stop" }).catch(() => {});
    this.timer.set(Infinity, () => {});
  }

  private async run(): Promise<void> {
    this.isRunning = true;
    while (this.batches.length > 0) {
      const batches = this.batches.splice(0);
      const steps = batches.flatMap((batch) => batch.out.persist);
      try {
        if (steps.length > 0) await this.store.apply(steps);
      } catch (error) {
        this.fail(batches, error);
        break;
      }
      for (const batch of batches) {
        this.carryOut(batch.out);
        batch.stored();
      }
    }
    this.isRunning = false;
  }

  private fail(batches: Batch[], error: unknown): void {
    this.hasFailed = true;
    this.timer.set(Infinity, () => {});
    this.hangUp(1000);
    this.emit([
      { is: "storage-failed", isFull: error instanceof Error && error.name === "QuotaExceededError" },
      { is: "connection", state: { is: "stopped", reason: "storage", code: null } },
    ]);
    for (const batch of [...batches, ...this.batches.splice(0)]) batch.failed(error);
    for (const answer of this.tickets.values()) answer({ is: "offline" });
    this.tickets.clear();
  }

  private carryOut(out: Outputs): void {
    if (this.socket?.readyState === OPEN) for (const bytes of out.frames) this.socket.send(bytes);
    for (const command of out.link) this.link(command);
    for (const { ticket, outcome } of out.answers) {
      this.tickets.get(ticket)?.(outcome);
      this.tickets.delete(ticket);
    }
    if (out.events.length > 0) this.emit(out.events);
  }

  private link(command: LinkCommand): void {
    switch (command.do) {
      case "connect":
        this.hangUp(1000);
        void this.dial(command.connection, command.refreshToken);
        return;
      case "close":
        this.hangUp(isProtocolCode(command.code) ? command.code : 1000);
        return;
      case "refresh-token":
        void this.getToken(true).then(
          (token) => this.tell({ is: "token-refreshed", connection: command.connection, token }),
          (error: unknown) => {
            if (isOver(error)) this.tell({ is: "token-rejected", connection: command.connection });
            // Else the connection goes on until its token ends, and the next one tries again.
          },
        );
    }
  }

  private tell(input: Input): void {
    this.input(input).catch(() => {});
  }

  private async getToken(another: boolean): Promise<string> {
    this.token = await this.session.accessToken(another ? this.token : undefined);
    return this.token;
  }

  private async dial(connection: number, refreshToken: boolean): Promise<void> {
    let token: string;
    try {
      token = await this.getToken(refreshToken);
    } catch (error) {
      this.tell(isOver(error) ? { is: "token-rejected", connection } : { is: "closed", connection, code: null });
      return;
    }
    if (this.hasFailed || !this.core.link.isCurrent(connection)) return;
    let socket: WebSocket;
    try {
      socket = new this.webSocket(`${this.session.server.replace(/^http/, "ws")}/v1/ws`, SUBPROTOCOL);
    } catch {
      // No address of one, or one that this page may not reach.
      return this.tell({ is: "closed", connection, code: null });
    }
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    const lost = (code: number | null): void => {
      if (this.socket === socket) this.socket = null;
      this.tell({ is: "closed", connection, code });
    };
    socket.onopen = () => this.tell({ is: "connected", connection, token, wallMs: Date.now() });
    // A text message is no frame: an empty one is refused by the core like any other that is none.
    socket.onmessage = ({ data }: MessageEvent<unknown>) =>
      this.tell({ is: "received", connection, bytes: data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array() });
    socket.onclose = (event) => lost(isProtocolCode(event.code) ? event.code : null);
    // Said again by the close that follows; a socket of Node's throws what nobody hears.
    socket.onerror = () => {};
  }

  private hangUp(code: number): void {
    const socket = this.socket;
    this.socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code);
  }

  /** The browser says that there is no network: what is open is dead, whether it knows or not. */
  networkLost(): void {
    if (!this.socket) return;
    this.hangUp(1000);
    this.tell({ is: "closed", connection: this.core.link.connection, code: null });
  }
}

const isOver = (error: unknown): boolean => error instanceof ApiError && OVER.has(error.code);
