/**
 * This SDK behind the line protocol of the conformance script (docs/conformance.md): lines become calls of {@link Client}, its
 * events become lines. Nothing is decided here.
 *
 * The store is the SDK's own over an IndexedDB in memory, which a {@link JournaledStore} makes outlive the process; the socket is
 * that of the package `ws`, because Node 20 has none.
 */

import "fake-indexeddb/auto";
import { createInterface } from "node:readline";
import { WebSocket as Socket } from "ws";
import { Client, type ClientEvent, type Id, type Message, type MessageKey, Session } from "../../src/index.js";
import { JournaledStore } from "./journal.js";

type Command =
  | { do: "connect"; url: string; token: string; data_dir: string; reconnect_base_ms: number }
  | { do: "token"; token: string }
  | { do: "send"; channel: Id; text: string; id: string }
  | { do: "open" | "close" | "view"; channel: Id }
  | { do: "read"; channel: Id; seq: number }
  | { do: "older"; channel: Id; items: number }
  | { do: "quit" };

const say = (said: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(said)}\n`);

/** Tokens come from the driver, the next one when it is asked for. */
let token = "";
let given: (() => void)[] = [];
async function nextToken(refused?: string): Promise<string> {
  if (refused !== undefined) {
    say({ event: "token_wanted" });
    await new Promise<void>((resolve) => given.push(resolve));
  }
  return token;
}

/** A message as the driver wants it; null for what changes the channel. */
function shown({ seq, author, content }: Message): Record<string, unknown> | null {
  if (content.is === "text") return { seq, author, text: content.text };
  return content.is === "payload" || (content.is === "unknown" && content.kind < 16) ? { seq, author } : null;
}

const left = new Set<Id>();
function tell(event: ClientEvent, earlier: Set<MessageKey>): void {
  switch (event.is) {
    case "connection":
      return say({ event: "state", state: event.state.is });
    case "message": {
      const message = shown(event.message);
      if (message) say({ event: "message", channel: event.message.channel, ...message });
      return;
    }
    // Sends of an earlier run have no handle in this one.
    case "send-stored":
      if (earlier.has(event.key)) say({ event: "sent", channel: event.channel, seq: event.seq });
      return;
    case "send-refused":
      if (earlier.has(event.key)) say({ event: "refused", code: event.code });
      return;
    case "channel": {
      const { channel, unread } = event.info;
      say({ event: "unread", channel, count: unread });
      if (event.info.left && !left.has(channel)) say({ event: "left", channel });
      if (event.info.left) left.add(channel);
      return;
    }
    case "channel-removed":
      return say({ event: "left", channel: event.channel });
    case "channel-reset":
      return say({ event: "reset", channel: event.channel });
    case "skipped":
      return say({ event: "skipped", channel: event.channel, to: event.to });
  }
}

async function act(client: Client, command: Command): Promise<void> {
  switch (command.do) {
    case "token":
      token = command.token;
      for (const resolve of given.splice(0)) resolve();
      return;
    case "send": {
      const { channel, text, id } = command;
      const { outcome } = await client.send(channel, text);
      void outcome.then((it) => {
        if (it.is === "stored") say({ event: "sent", id, channel, seq: it.seq });
        if (it.is === "refused") say({ event: "refused", id, code: it.code });
      });
      return;
    }
    case "open":
      return client.openChannel(command.channel);
    case "close":
      return client.closeChannel(command.channel);
    case "read":
      return client.markRead(command.channel, command.seq);
    case "older":
      await client.loadOlder(command.channel, command.items);
      return say({ event: "older", channel: command.channel });
    case "view": {
      const info = client.channelInfo(command.channel);
      const held = info ? await client.messages(command.channel, info.heldTo - info.heldFrom + 1) : [];
      return say({ event: "view", channel: command.channel, messages: held.map(shown).filter((it) => it !== null) });
    }
  }
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async (): Promise<Command | null> => {
  const { value, done } = await lines.next();
  return done ? null : (JSON.parse(value as string) as Command);
};

const first = await next();
if (first?.do !== "connect") throw new Error("the first command is connect");
token = first.token;
const store = await JournaledStore.open(first.data_dir);
const earlier = new Set((await store.load()).outbox.map((it) => it.key));
const server = first.url.replace(/^ws/, "http").replace(/\/v1\/ws$/, "");
const session = Session.withTokens(server, { user: "0", device: "0" }, nextToken);
const client = await Client.open(session, {
  store,
  webSocket: Socket as unknown as typeof WebSocket,
  config: { reconnectBaseMs: first.reconnect_base_ms, client: "conch-conform-host-web" },
});
client.on((event) => tell(event, earlier));
for (;;) {
  const command = await next();
  if (!command || command.do === "quit") break;
  // In order, but none waits for the one before: a person does not either.
  void act(client, command).catch((error: unknown) => process.stderr.write(`${String(error)}\n`));
}
await client.close();
process.stdin.destroy();
