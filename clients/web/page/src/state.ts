/**
 * What the page knows, outside of its components: the client, who people are, and when to draw again.
 *
 * Components read from the client when they are drawn and are drawn again after it said that something changed, at most once
 * a frame. Names come from the node in batches and are kept on this device, so that a page opened offline shows them too.
 */

import { type ChannelInfo, Client, type ClientEvent, type Id, type Person, Session, localTokenStore, workerTimer } from "@conch/sdk";
import tickerUrl from "@conch/sdk/ticker?worker&url";
import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import type { Drafts } from "./drafts.js";
import { clean } from "./names.js";

export const server = location.origin;
export const tokens = localTokenStore("conch.session");

/** One policy, for one URL: the worker that lies beside this script. */
const policy = window.trustedTypes?.createPolicy("conch", {
  createScriptURL: (url: string) => {
    if (new URL(url, location.href).href !== new URL(tickerUrl, location.href).href) throw new TypeError("not a script of this page");
    return url;
  },
});

function ticker(): Worker {
  return new Worker((policy?.createScriptURL(tickerUrl) ?? tickerUrl) as string, { type: "module" });
}

export async function openClient(session: Session): Promise<Client> {
  return Client.open(session, { timer: workerTimer(ticker()), config: { client: "conch-page 0.1.0" } });
}

/** People who are kept on this device. */
const KEPT_MAX = 2_000;
const ASK_AGAIN_MS = 3_000;

/** Who people are. */
export class People {
  private readonly known = new Map<Id, Person>();
  private readonly wanted = new Set<Id>();
  /** Asked for in this session; once the node said who they are, or that there is nobody, not again. */
  private readonly asked = new Set<Id>();
  private readonly name: string;

  constructor(
    private readonly client: Client,
    private readonly changed: () => void,
  ) {
    this.name = peopleOf(client.user);
    try {
      for (const person of JSON.parse(localStorage.getItem(this.name) ?? "[]") as Person[]) this.known.set(person.user, person);
    } catch {
      // Denied or damaged: the node knows.
    }
    const { session } = client;
    this.learn({ user: session.user, handle: session.handle, displayName: session.displayName });
  }

  learn(person: Person): void {
    // Somebody whose names this device does not know.
    if (person.handle === "") return;
    this.known.set(person.user, { user: person.user, handle: person.handle, displayName: person.displayName });
  }

  /** The person, if known; else asks for them, and everything is drawn again with the answer. */
  get(id: Id): Person | undefined {
    const person = this.known.get(id);
    if (!this.asked.has(id)) {
      this.asked.add(id);
      if (this.wanted.size === 0) setTimeout(() => void this.ask(), 30);
      this.wanted.add(id);
    }
    return person;
  }

  display(id: Id): string {
    const person = this.get(id);
    return person ? clean(person.displayName, person.handle) : "…";
  }

  private async ask(): Promise<void> {
    const ids = [...this.wanted];
    this.wanted.clear();
    try {
      for (const person of await this.client.people(ids)) this.learn(person);
    } catch {
      // Offline: asked for again, but not with the next drawing already.
      setTimeout(() => this.again(ids), ASK_AGAIN_MS);
      return;
    }
    // Logged out in between: nothing of it stays here.
    if (this.client.session.isOver) return;
    try {
      localStorage.setItem(this.name, JSON.stringify([...this.known.values()].slice(-KEPT_MAX)));
    } catch {
      // Denied or full: the node knows.
    }
    this.changed();
  }

  private again(ids: Id[]): void {
    for (const id of ids) this.asked.delete(id);
    this.changed();
  }
}

const peopleOf = (user: Id): string => `conch.people:${user}`;

/** Who people are is not this device's to know any more. To be called when the session is over: an answer that comes later is not kept. */
export function forgetPeople(user: Id): void {
  try {
    localStorage.removeItem(peopleOf(user));
  } catch {
    // Denied: nothing is there.
  }
}

export interface Chat {
  client: Client;
  people: People;
  drafts: Drafts;
}

export const ChatContext = createContext<Chat | null>(null);

export function useChat(): Chat {
  const chat = useContext(ChatContext);
  if (!chat) throw new Error("used outside of a chat");
  return chat;
}

/** Draws again, at most once a frame, after events that `concerns` says yes to. */
export function useEvents(concerns: (event: ClientEvent) => boolean, handle?: (event: ClientEvent) => void): void {
  const { client } = useChat();
  const [, draw] = useState(0);
  useEffect(() => {
    let due = 0;
    const stop = client.on((event) => {
      if (!concerns(event)) return;
      handle?.(event);
      due ||= requestAnimationFrame(() => {
        due = 0;
        draw((n) => n + 1);
      });
    });
    return () => {
      stop();
      cancelAnimationFrame(due);
    };
  }, [client, concerns, handle]);
}

export function titleOf(info: ChannelInfo, people: People): string {
  if (info.kind === "group") return clean(info.title, "Group");
  if (info.kind === "self") return "Notes to myself";
  return info.peer === null ? "Conversation" : people.display(info.peer);
}

/** The conversation in the address, and going to one. */
export const route = {
  read: (): Id | null => /^#\/c\/(\d{1,19})$/.exec(location.hash)?.[1] ?? null,
  go: (channel: Id | null): void => {
    const hash = channel === null ? "#/" : `#/c/${channel}`;
    if (location.hash !== hash) location.hash = hash;
  },
};
