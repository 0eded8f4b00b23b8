/**
 * The HTTP calls of docs/http.md: accounts, people, channels. Messages go over the WebSocket, not here.
 *
 * Every refusal is an {@link ApiError} with the node's stable `code`; a node that cannot be reached is one with the code
 * `unreachable`. Calls that need a token take it from the {@link TokenSource}, and once more with a fresh one when it was refused.
 */

import type { ChannelKind, Id, MemberRole } from "../wire/values.js";

/** A refusal: of the node, of the network, or of this SDK. */
export class ApiError extends Error {
  override name = "ApiError";

  /** `detail` is for people; the rest is API. */
  constructor(
    /** The node's code (docs/http.md); `unreachable`; or of this SDK: `invalid`, `outbox_full`, `not_refused`, `offline`, `refused`, `storage`. */
    readonly code: string,
    /** HTTP status; 0 without one. */
    readonly status: number,
    detail: string,
    /** Not to be tried again sooner, in milliseconds; 0: nothing was said. */
    readonly retryAfterMs: number,
  ) {
    super(detail || code);
  }
}

/** Sign-up, log-in and refresh answer with this. */
export interface Login {
  user: Id;
  handle: string;
  displayName: string;
  device: Id;
  accessToken: string;
  expiresInMs: number;
  refreshToken: string;
}

/** Somebody with an account. */
export interface Person {
  user: Id;
  handle: string;
  displayName: string;
}

/** Somebody in a channel. */
export interface ChannelMember extends Person {
  role: MemberRole;
  /** The event by which they came. */
  joinedSeq: number;
}

/** One installation that this person is logged in on. Times in ms since 1970, by the node's clock. */
export interface Device {
  device: Id;
  name: string;
  platform: string;
  createdMs: number;
  seenMs: number;
  /** It is this one. */
  current: boolean;
}

/** A channel, as HTTP gives it. {@link Client.channels} has what this device knows. */
export interface ChannelDetails {
  channel: Id;
  kind: ChannelKind;
  title: string;
  role: MemberRole;
  members: number;
}

/** Gives the access token; with `not`, another one than that, which was refused. Throws {@link ApiError}. */
export type TokenSource = (not?: string) => Promise<string>;

/** The node's names have underscores, ours humps; `user_id` is `user` here as everywhere in the SDKs. */
function humps(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(humps);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, it]) => [name.replace(/_id$/, "").replace(/_([a-z])/g, (_, c: string) => c.toUpperCase()), humps(it)]));
}

/** A server's address without slashes at its end. */
export const trimmed = (server: string): string => server.replace(/\/+$/, "");

/** The HTTP calls. {@link Client.api} has the session's tokens. */
export class Api {
  /** `https://host[:port]`, without a slash at the end. */
  readonly server: string;

  /** `server`: `https://host[:port]`. Without tokens only sign-up, log-in and refresh work. */
  constructor(
    server: string,
    private readonly tokens?: TokenSource,
  ) {
    this.server = trimmed(server);
  }

  /** Makes an account and a device; see {@link Session.signUp}. */
  signUp(account: { handle: string; password: string; displayName?: string; deviceName?: string }): Promise<Login> {
    return this.call("POST", "/v1/accounts", {
      handle: account.handle,
      password: account.password,
      display_name: account.displayName || undefined,
      device_name: account.deviceName,
      platform: "web",
    });
  }

  /** Makes a device of an account; see {@link Session.logIn}. */
  logIn(account: { handle: string; password: string; deviceName?: string }): Promise<Login> {
    return this.call("POST", "/v1/sessions", {
      handle: account.handle,
      password: account.password,
      device_name: account.deviceName,
      platform: "web",
    });
  }

  /** Exchanges a refresh token, which is good for one use; a {@link Session} does it by itself. */
  refresh(refreshToken: string): Promise<Login> {
    return this.call("POST", "/v1/tokens/refresh", { refresh_token: refreshToken });
  }

  /** Logs this device out at the node; {@link Client.logOut} forgets what is stored here too. */
  async logOut(): Promise<void> {
    await this.authorized("POST", "/v1/sessions/logout");
  }

  /** All devices of this person. */
  async devices(): Promise<Device[]> {
    return (await this.authorized<{ devices: Device[] }>("GET", "/v1/devices")).devices;
  }

  /** Logs another device out, for good. */
  async removeDevice(device: Id): Promise<void> {
    await this.authorized("DELETE", `/v1/devices/${device}`);
  }

  /** The person of this handle. Throws `not_found`. */
  userByHandle(handle: string): Promise<Person> {
    return this.authorized("GET", `/v1/users/by-handle/${encodeURIComponent(handle)}`);
  }

  /** People by their ids, 100 at a time; ids that nobody has are left out. */
  async people(ids: Id[]): Promise<Person[]> {
    const found: Person[] = [];
    for (let i = 0; i < ids.length; i += 100) {
      const page = ids.slice(i, i + 100).join(",");
      found.push(...(await this.authorized<{ users: Person[] }>("GET", `/v1/users?ids=${page}`)).users);
    }
    return found;
  }

  /** The one channel with that person, made if there was none. */
  direct(user: Id): Promise<ChannelDetails> {
    return this.authorized("POST", "/v1/channels/direct", { user_id: user });
  }

  /** The same request under the same `idempotencyKey` makes one group, however often it is repeated. */
  createGroup(title: string, members: Id[], idempotencyKey: string): Promise<ChannelDetails> {
    return this.authorized("POST", "/v1/channels", { title, members }, { "Idempotency-Key": idempotencyKey });
  }

  /** Gives a group another title: 1 to 100 characters. */
  rename(channel: Id, title: string): Promise<ChannelDetails> {
    return this.authorized("PATCH", `/v1/channels/${channel}`, { title });
  }

  /** Everybody in a channel. */
  async members(channel: Id): Promise<ChannelMember[]> {
    return (await this.authorized<{ members: ChannelMember[] }>("GET", `/v1/channels/${channel}/members`)).members;
  }

  /** Adds people to a group. */
  addMembers(channel: Id, members: Id[]): Promise<ChannelDetails> {
    return this.authorized("POST", `/v1/channels/${channel}/members`, { members });
  }

  /** With one's own id: leaves. */
  async removeMember(channel: Id, user: Id): Promise<void> {
    await this.authorized("DELETE", `/v1/channels/${channel}/members/${user}`);
  }

  private async authorized<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
    if (!this.tokens) throw new ApiError("unauthenticated", 401, "", 0);
    const token = await this.tokens();
    const withToken = (it: string): Record<string, string> => ({ ...headers, Authorization: `Bearer ${it}` });
    try {
      return await this.call<T>(method, path, body, withToken(token));
    } catch (error) {
      if (!(error instanceof ApiError) || (error.code !== "token_expired" && error.code !== "unauthenticated")) throw error;
      return this.call<T>(method, path, body, withToken(await this.tokens(token)));
    }
  }

  private async call<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
    let response: Response;
    let answer: unknown;
    try {
      response = await fetch(this.server + path, {
        method,
        headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        credentials: "omit",
        cache: "no-store",
        signal: AbortSignal.timeout(15_000),
      });
      answer = response.status === 204 ? null : await response.json();
    } catch {
      throw new ApiError("unreachable", 0, "", 0);
    }
    if (response.ok) return humps(answer) as T;
    const problem = humps(answer) as { code?: string; detail?: string; retryAfterMs?: number };
    throw new ApiError(problem.code ?? "unavailable", response.status, problem.detail ?? "", problem.retryAfterMs ?? 0);
  }
}
