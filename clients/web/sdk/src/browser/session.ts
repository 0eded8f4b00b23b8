/**
 * Who is logged in on this device: tokens, kept over restarts and shared by all tabs.
 *
 * A refresh token is good for one use, so tabs refresh one at a time (a Web Lock), store the new one before it is used, and
 * look first whether another tab has done it already. Where nothing can be stored (private mode) the session ends with the tab.
 */

import type { Id } from "../wire/values.js";
import { Api, ApiError, type Login, type TokenSource, trimmed } from "./api.js";

interface Stored {
  user: Id;
  handle: string;
  displayName: string;
  device: Id;
  accessToken: string;
  /** By this device's clock. */
  expiresAtMs: number;
  refreshToken: string;
}

/** Milliseconds before its end a token is exchanged, so that no call is refused for it. */
const EARLY_MS = 60_000;

/** Whose a session is, for one that gets its tokens from elsewhere. */
export interface SessionOwner {
  user: Id;
  device: Id;
  handle?: string;
  displayName?: string;
}

/** Where the tokens of a {@link Session} are kept: {@link localTokenStore}, or an application's own (in Node, say, a file). */
export interface TokenStore {
  /** What was saved last; null if there is nothing. */
  load(): string | null;
  /** Keeps the text, or forgets it (null). */
  save(text: string | null): void;
}

/** `localStorage`, or the memory of this tab where that is denied. */
export function localTokenStore(name: string): TokenStore {
  let memory: string | null = null;
  let denied = false;
  return {
    load: () => {
      try {
        return denied ? memory : localStorage.getItem(name);
      } catch {
        denied = true;
        return memory;
      }
    },
    save: (text) => {
      memory = text;
      try {
        if (text === null) localStorage.removeItem(name);
        else localStorage.setItem(name, text);
      } catch {
        denied = true;
      }
    },
  };
}

/** Who is logged in on this device, and with what tokens. Made by signing up or logging in, kept over restarts. */
export class Session {
  /** `https://host[:port]` of the node. */
  readonly server: string;

  private constructor(
    server: string,
    private readonly store: TokenStore,
    private stored: Stored,
    private readonly source: TokenSource | null = null,
  ) {
    this.server = trimmed(server);
  }

  /** The session that was stored, if there is one. */
  static load(server: string, store: TokenStore): Session | null {
    const stored = read(store);
    return stored && new Session(server, store, stored);
  }

  /**
   * A session whose access tokens come from an identity provider of the application's own, in place of the node's accounts.
   * A source that throws {@link ApiError} `unauthenticated` says that the person must log in again.
   */
  static withTokens(server: string, owner: SessionOwner, tokens: TokenSource): Session {
    const { user, device, handle = "", displayName = "" } = owner;
    const nothing = { user, device, handle, displayName, accessToken: "", expiresAtMs: 0, refreshToken: "" };
    return new Session(server, { load: () => null, save: () => {} }, nothing, tokens);
  }

  /** Makes an account and logs this device in. Throws {@link ApiError}. */
  static async signUp(
    server: string,
    store: TokenStore,
    account: { handle: string; password: string; displayName?: string; deviceName?: string },
  ): Promise<Session> {
    return Session.from(server, store, await new Api(server).signUp(account));
  }

  /** Logs this device in. Throws {@link ApiError}. */
  static async logIn(
    server: string,
    store: TokenStore,
    account: { handle: string; password: string; deviceName?: string },
  ): Promise<Session> {
    return Session.from(server, store, await new Api(server).logIn(account));
  }

  private static from(server: string, store: TokenStore, tokens: Login): Session {
    const session = new Session(server, store, keep(tokens));
    store.save(JSON.stringify(session.stored));
    return session;
  }

  /** The person's id. */
  get user(): Id {
    return this.stored.user;
  }
  /** This device's id. */
  get device(): Id {
    return this.stored.device;
  }
  /** The name by which people find this person. */
  get handle(): string {
    return this.stored.handle;
  }
  /** The name that people see. */
  get displayName(): string {
    return this.stored.displayName;
  }

  /** An access token; with `not`, another one than that. Throws {@link ApiError}: `unauthenticated` once the session is over. */
  async accessToken(not?: string): Promise<string> {
    if (this.source) return this.source(not);
    this.reload();
    if (this.isFresh(not)) return this.stored.accessToken;
    return locked(`conch-refresh:${this.stored.device}`, async () => {
      // Another tab may have done it while this one waited.
      this.reload();
      if (this.isFresh(not)) return this.stored.accessToken;
      this.stored = keep(await new Api(this.server).refresh(this.stored.refreshToken));
      this.store.save(JSON.stringify(this.stored));
      return this.stored.accessToken;
    });
  }

  private isFresh(not: string | undefined): boolean {
    return this.stored.accessToken !== not && Date.now() < this.stored.expiresAtMs - EARLY_MS;
  }

  private reload(): void {
    const stored = read(this.store);
    if (!stored || stored.device !== this.stored.device) throw new ApiError("unauthenticated", 401, "this session has ended", 0);
    this.stored = stored;
  }

  /** Whether tokens are still there: another tab may have logged out. */
  get isOver(): boolean {
    return !this.source && read(this.store)?.device !== this.stored.device;
  }

  /** Forgets the tokens on this device. */
  forget(): void {
    if (!this.source && !this.isOver) this.store.save(null);
  }
}

function keep(tokens: Login): Stored {
  const { user, handle, displayName, device, accessToken, refreshToken } = tokens;
  return { user, handle, displayName, device, accessToken, refreshToken, expiresAtMs: Date.now() + tokens.expiresInMs };
}

function read(store: TokenStore): Stored | null {
  try {
    const stored = JSON.parse(store.load() ?? "null") as Stored | null;
    return typeof stored?.refreshToken === "string" && typeof stored.user === "string" ? stored : null;
  } catch {
    return null;
  }
}

function locked<T>(name: string, work: () => Promise<T>): Promise<T> {
  return globalThis.navigator?.locks ? navigator.locks.request(name, work) : work();
}
