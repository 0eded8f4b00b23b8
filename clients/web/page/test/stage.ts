/** A browser, a node and people at it, for the tests of one file; what a browser complained of fails the test. */

import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { Author } from "./author.js";
import { Node, until } from "./node.js";
import { type ContextOptions, Person, launch, placed } from "./people.js";

export class Stage {
  browser!: Browser;
  node!: Node;
  private people: Person[] = [];
  private authors: Author[] = [];

  /** To be called once in a file. */
  static forTests(): Stage {
    const stage = new Stage();
    beforeAll(async () => {
      [stage.browser, stage.node] = await Promise.all([launch(), Node.start()]);
    });
    afterEach(async () => {
      const complaints = stage.people.flatMap((it) => it.complaints);
      await Promise.all([...stage.people, ...stage.authors].map((it) => it.context.close()));
      stage.people = [];
      stage.authors = [];
      expect(complaints).toEqual([]);
    });
    afterAll(async () => {
      await stage.browser?.close();
      await stage.node?.end();
    });
    return stage;
  }

  /** Somebody before the page, who is nobody yet. */
  async stranger(options: ContextOptions = {}, before?: Parameters<typeof Person.at>[3]): Promise<Person> {
    const it = await Person.at(this.browser, this.node.url, options, before);
    this.people.push(it);
    return it;
  }

  async person(name: string, displayName = name, options: ContextOptions = {}): Promise<Person> {
    return (await this.stranger(options)).signUp(name, displayName);
  }

  /** Somebody with another device, or one that knows nothing. */
  async device(handle: string, options: ContextOptions = {}): Promise<Person> {
    return (await this.stranger(options)).logIn(handle);
  }

  /** Somebody who writes through the SDK, much and fast. */
  async author(name: string, displayName = name): Promise<Author> {
    const it = await Author.at(this.browser, this.node.url, name, displayName);
    this.authors.push(it);
    return it;
  }

  /** Two people in their conversation. */
  async pair(options: ContextOptions = {}): Promise<[Person, Person]> {
    const [ada, grace] = await Promise.all([this.person("Ada", "Ada", options), this.person("Grace", "Grace", options)]);
    await ada.writeTo(grace.handle);
    await ada.say("hello");
    await grace.open(/Ada/);
    await until("the first message is there", async () => (await placed(grace.page)).includes("hello"));
    return [ada, grace];
  }
}

export const counted = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${prefix} ${i + 1}`);
