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

  static async at(browser: Browser, url: string, name: string): Promise<Author> {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${url}/v1/node`);
    await page.evaluate(await sdk());
    const handle = `${name.toLowerCase()}${nextNumber()}`;
    const user = await page.evaluate(
      async ({ handle, name, password }) => {
        const tab = globalThis as unknown as Tab;
        const store = tab.sdk.localTokenStore("author");
        const session = await tab.sdk.Session.signUp(location.origin, store, { handle, password, displayName: name });
        tab.client = await tab.sdk.Client.open(session);
        return session.user;
      },
      { handle, name, password: PASSWORD },
    );
    return new Author(context, page, handle, user);
  }

  /** The conversation with the person of that handle; its id. */
  direct(handle: string): Promise<string> {
    return this.page.evaluate(async (it) => {
      const { client } = globalThis as unknown as Tab;
      return (await client.api.openDirect((await client.api.personByHandle(it)).userId)).channelId;
    }, handle);
  }

  /** A group with the people of those handles; its id. */
  group(title: string, handles: string[]): Promise<string> {
    return this.page.evaluate(
      async ({ title, handles }) => {
        const { client } = globalThis as unknown as Tab;
        const people = await Promise.all(handles.map((it) => client.api.personByHandle(it)));
        return (await client.api.createGroup(title, people.map((it) => it.userId), crypto.randomUUID())).channelId;
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

  async addMember(channel: string, handle: string): Promise<void> {
    await this.page.evaluate(
      async ({ channel, handle }) => {
        const { client } = globalThis as unknown as Tab;
        await client.api.addMembers(channel, [(await client.api.personByHandle(handle)).userId]);
      },
      { channel, handle },
    );
  }

  /** The id of the person of that handle. */
  userOf(handle: string): Promise<string> {
    return this.page.evaluate(async (it) => (await (globalThis as unknown as Tab).client.api.personByHandle(it)).userId, handle);
  }

  removeMember(channel: string, user: string): Promise<void> {
    return this.page.evaluate(({ channel, user }) => (globalThis as unknown as Tab).client.api.removeMember(channel, user), { channel, user });
  }
}
