/** Somebody without the page: the SDK by itself in a bare tab of the node's origin, for much and fast writing. */

import { build } from "esbuild";
import type * as Sdk from "@conch/sdk";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { PASSWORD, nextNumber } from "./people.js";

let bundle: Promise<string> | undefined;
/** The SDK as one script that sets `sdk`. */
function sdk(): Promise<string> {
  const entry = fileURLToPath(new URL("../../sdk/src/index.ts", import.meta.url));
  bundle ??= build({ entryPoints: [entry], bundle: true, format: "iife", globalName: "sdk", target: "es2022", write: false }).then(
    ({ outputFiles }) => `${outputFiles[0]!.text}; globalThis.sdk = sdk; 0`,
  );
  return bundle;
}

/** What the tab has. */
interface Tab {
  sdk: typeof Sdk;
  client: Sdk.Client;
}

export class Author {
  private constructor(
    readonly context: BrowserContext,
    private readonly page: Page,
    readonly handle: string,
    readonly user: string,
  ) {}

  static async at(browser: Browser, url: string, name: string, displayName = name): Promise<Author> {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${url}/v1/node`);
    await page.evaluate(await sdk());
    const handle = `${name.toLowerCase()}${nextNumber()}`;
    const user = await page.evaluate(
      async ({ handle, displayName, password }) => {
        const tab = globalThis as unknown as Tab;
        const store = tab.sdk.localTokenStore("author");
        const session = await tab.sdk.Session.signUp(location.origin, store, { handle, password, displayName });
        tab.client = await tab.sdk.Client.open(session);
        return session.user;
      },
      { handle, displayName, password: PASSWORD },
    );
    return new Author(context, page, handle, user);
  }

  /** The conversation with the person of that handle; its id. */
  direct(handle: string): Promise<string> {
    return this.page.evaluate(async (it) => {
      const { client } = globalThis as unknown as Tab;
      return (await client.direct((await client.userByHandle(it)).user)).id;
    }, handle);
  }

  /** A group with the people of those handles; its id. */
  group(title: string, handles: string[]): Promise<string> {
    return this.page.evaluate(
      async ({ title, handles }) => {
        const { client } = globalThis as unknown as Tab;
        const people = await Promise.all(handles.map((it) => client.userByHandle(it)));
        return (await client.createGroup(title, people.map((it) => it.user))).id;
      },
      { title, handles },
    );
  }

  /** Writes all of it, in order; resolves when the node has it. */
  async write(channel: string, texts: string[]): Promise<void> {
    await this.page.evaluate(
      async ({ channel, texts }) => {
        const { client } = globalThis as unknown as Tab;
        for (let at = 0; at < texts.length; at += 500) {
          await Promise.all(texts.slice(at, at + 500).map((text) => client.send(channel, text)));
          while (client.outbox(channel).some((it) => it.state !== "refused")) await new Promise((resolve) => setTimeout(resolve, 5));
        }
      },
      { channel, texts },
    );
  }

  /** A text that mentions the people of those handles. */
  async mention(channel: string, text: string, handles: string[]): Promise<void> {
    await this.page.evaluate(
      async ({ channel, text, handles }) => {
        const { client } = globalThis as unknown as Tab;
        const people = await Promise.all(handles.map((it) => client.userByHandle(it)));
        await (await client.send(channel, text, { mentions: people.map((it) => it.user) })).outcome;
      },
      { channel, text, handles },
    );
  }

  /** A file, as a native client sends one; these are its bytes. The SDK has no call for it. */
  async file(channel: string, words: string): Promise<void> {
    await this.page.evaluate(
      async ({ channel, words }) => {
        const { client } = globalThis as unknown as Tab;
        const { tabs } = client as unknown as { tabs: { command(it: Sdk.Command): Promise<unknown> } };
        const key = crypto.randomUUID().replaceAll("-", "");
        await tabs.command({ is: "send", channel, key, kind: 3, flags: 0, tail: new TextEncoder().encode(words), createdMs: Date.now() });
        while (client.outbox(channel).length > 0) await new Promise((resolve) => setTimeout(resolve, 5));
      },
      { channel, words },
    );
  }

  async rename(channel: string, title: string): Promise<void> {
    await this.page.evaluate(({ channel, title }) => (globalThis as unknown as Tab).client.rename(channel, title), { channel, title });
  }

  async addMember(channel: string, handle: string): Promise<void> {
    await this.page.evaluate(
      async ({ channel, handle }) => {
        const { client } = globalThis as unknown as Tab;
        await client.addMembers(channel, [(await client.userByHandle(handle)).user]);
      },
      { channel, handle },
    );
  }

  /** The id of the person of that handle. */
  userOf(handle: string): Promise<string> {
    return this.page.evaluate(async (it) => (await (globalThis as unknown as Tab).client.userByHandle(it)).user, handle);
  }

  removeMember(channel: string, user: string): Promise<void> {
    return this.page.evaluate(({ channel, user }) => (globalThis as unknown as Tab).client.removeMember(channel, user), { channel, user });
  }
}
