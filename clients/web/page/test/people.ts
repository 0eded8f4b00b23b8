/** People at their browsers: each a context of its own, with what went wrong in it. */

import { type Browser, type BrowserContext, type Page, chromium } from "playwright-core";
import { existsSync } from "node:fs";

const CANDIDATES = [process.env["CHROMIUM"], "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export async function launch(): Promise<Browser> {
  const executablePath = CANDIDATES.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error("no Chromium: `make web-test` installs one");
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-background-networking"] });
}

let number = 0;
/** For handles that nobody has yet. */
export const nextNumber = (): number => (number += 1);
export const PASSWORD = "correct horse battery";

export type ContextOptions = NonNullable<Parameters<Browser["newContext"]>[0]>;

export class Person {
  /** What the browser complained of: breaches of the policy, errors, requests to other hosts. */
  readonly complaints: string[] = [];
  handle = "";

  private constructor(
    readonly context: BrowserContext,
    readonly url: string,
    public page: Page,
    private readonly isTouch: boolean,
  ) {}

  /** `before`: what the browser of this person is like, before the page is opened in it. */
  static async at(browser: Browser, url: string, options: ContextOptions = {}, before?: (context: BrowserContext) => Promise<void>): Promise<Person> {
    const context = await browser.newContext({ locale: "en-GB", ...options });
    context.setDefaultTimeout(60_000);
    // Every breach of the policy, in words of our own: the console's may change.
    await context.addInitScript(() =>
      document.addEventListener("securitypolicyviolation", (it) => console.log(`Content Security Policy: ${it.effectiveDirective} ${it.blockedURI}`)),
    );
    await before?.(context);
    const person = new Person(context, url, await context.newPage(), options.hasTouch ?? false);
    person.watch(person.page);
    await person.page.goto(url);
    return person;
  }

  private watch(page: Page): void {
    page.on("pageerror", (error) => this.complaints.push(`error: ${error.message}`));
    page.on("console", (message) => {
      if (/Content Security Policy|Trusted ?Type|TrustedScript/i.test(message.text())) this.complaints.push(message.text());
    });
    page.on("request", (request) => {
      if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).host !== new URL(this.url).host) {
        this.complaints.push(`foreign request: ${request.url()}`);
      }
    });
    page.on("dialog", (dialog) => {
      this.complaints.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
  }

  async signUp(name: string, displayName = name): Promise<this> {
    this.handle = `${name.toLowerCase()}${nextNumber()}`;
    await this.page.getByLabel("Handle").fill(this.handle);
    await this.page.getByLabel("Name (optional)").fill(displayName);
    await this.page.getByLabel("Password").fill(PASSWORD);
    await this.page.getByRole("button", { name: "Sign up" }).click();
    await this.page.getByRole("heading", { name: "Conversations" }).waitFor();
    return this;
  }

  async logIn(handle: string): Promise<this> {
    this.handle = handle;
    await this.page.getByRole("button", { name: "Log in" }).click();
    await this.page.getByLabel("Handle").fill(handle);
    await this.page.getByLabel("Password").fill(PASSWORD);
    await this.page.getByRole("button", { name: "Log in" }).click();
    await this.page.getByRole("heading", { name: "Conversations" }).waitFor();
    return this;
  }

  async newTab(): Promise<Page> {
    const page = await this.context.newPage();
    this.watch(page);
    await page.goto(this.url);
    return page;
  }

  async writeTo(handle: string): Promise<void> {
    await this.page.getByRole("button", { name: "New conversation" }).click();
    await this.page.getByLabel("Their handle").fill(handle);
    await this.page.getByRole("button", { name: "Start" }).click();
    await this.page.locator(".conversation-title", { hasText: `@${handle}` }).waitFor();
    await field(this.page).waitFor();
  }

  async open(title: string | RegExp): Promise<void> {
    await this.page.getByRole("link", { name: title }).first().click();
    await this.page.getByRole("heading", { name: title, level: 2 }).waitFor();
    await field(this.page).waitFor();
  }

  /** Back to the list of conversations, as from a phone's screen. */
  async close(): Promise<void> {
    await this.page.evaluate(() => (location.hash = "#/"));
    await field(this.page).waitFor({ state: "detached" });
  }

  async menu(item: string): Promise<void> {
    await this.page.locator(".menu summary").click();
    await this.page.getByRole("button", { name: item, exact: true }).click();
  }

  async say(text: string): Promise<void> {
    await field(this.page).fill(text);
    if (this.isTouch) await this.page.getByRole("button", { name: "Send" }).tap();
    else await field(this.page).press("Enter");
  }
}

export const field = (page: Page) => page.getByRole("textbox", { name: /^Message to/ });

/** The texts of all bubbles, in the order of the screen, those on their way included. */
export const bubbles = (page: Page): Promise<string[]> =>
  page.locator(".bubble").evaluateAll((all) => all.map((it) => it.textContent ?? ""));

/** The texts of what the node has. */
export const placed = (page: Page): Promise<string[]> =>
  page.locator(".row-bubble .bubble").evaluateAll((all) => all.map((it) => it.textContent ?? ""));
