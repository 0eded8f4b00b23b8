/** Two people chat in a real Chromium, and what happens when something breaks. */

import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Node, target, until } from "./node.js";
import { Person, bubbles, field, launch, placed } from "./people.js";

let browser: Browser;
let node: Node;
let people: Person[] = [];

beforeAll(async () => {
  [browser, node] = await Promise.all([launch(), Node.start()]);
});
afterEach(async () => {
  const complaints = people.flatMap((it) => it.complaints);
  await Promise.all(people.map((it) => it.context.close()));
  people = [];
  expect(complaints).toEqual([]);
});
afterAll(async () => {
  await browser?.close();
  await node?.end();
});

async function person(name: string, displayName = name, options: Parameters<typeof Person.at>[2] = {}): Promise<Person> {
  const it = await Person.at(browser, node.url, options);
  people.push(it);
  return it.signUp(name, displayName);
}

/** Two people in their conversation. */
async function pair(): Promise<[Person, Person]> {
  const [ada, grace] = await Promise.all([person("Ada"), person("Grace")]);
  await ada.writeTo(grace.handle);
  await ada.say("hello");
  await grace.open(/Ada/);
  await until("the first message is there", async () => (await placed(grace.page)).includes("hello"));
  return [ada, grace];
}

const counted = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${prefix} ${i + 1}`);

describe("chat", () => {
  it("two people find each other by handle, chat, come back, and read back", async () => {
    const [ada, grace] = await pair();
    await grace.say("good morning");
    await until("the answer is there", async () => (await placed(ada.page)).includes("good morning"));
    await ada.page.reload();
    await until("it is there after coming back", async () => (await placed(ada.page)).join() === "hello,good morning");
    expect(await placed(grace.page)).toEqual(["hello", "good morning"]);
  });

  it("unread and preview follow, and reading ends them", async () => {
    const [ada, grace] = await pair();
    await grace.page.evaluate(() => (location.hash = "#/"));
    await ada.say("one");
    await ada.say("two");
    await until("unread", async () => (await grace.page.locator(".badge").textContent().catch(() => "")) === "2 unread");
    expect(await grace.page.locator(".entry-line").textContent()).toBe("two");
    await grace.open(/Ada/);
    await until("read", async () => (await grace.page.locator(".badge").count()) === 0);
  });

  it("a group: made, somebody added, removed, left", async () => {
    const [ada, grace, linus] = await Promise.all([person("Ada"), person("Grace"), person("Linus")]);
    await ada.page.getByRole("button", { name: "New conversation" }).click();
    await ada.page.getByRole("button", { name: "A group" }).click();
    await ada.page.getByLabel("Name of the group").fill("Harbour");
    await ada.page.getByLabel("Members").fill(grace.handle);
    await ada.page.getByRole("button", { name: "Make the group" }).click();
    await field(ada.page).waitFor();
    await ada.say("welcome");
    await grace.open(/Harbour/);
    await until("the group's message", async () => (await placed(grace.page)).includes("welcome"));

    await ada.page.getByRole("button", { name: "Members" }).click();
    await ada.page.getByLabel("Add somebody by handle").fill(linus.handle);
    await ada.page.getByRole("button", { name: "Add", exact: true }).click();
    await linus.open(/Harbour/);
    await linus.say("hi all");
    await until("heard by all", async () => (await placed(grace.page)).includes("hi all"));
    await ada.page.getByRole("button", { name: `Remove ${linus.handle}` }).click();
    await linus.page.getByText("You are not in this group any more").waitFor();
    await ada.page.getByRole("button", { name: "Close" }).click();

    await grace.page.getByRole("button", { name: "Members" }).click();
    await grace.page.getByRole("button", { name: "Leave the group" }).click();
    await grace.page.getByRole("button", { name: "Leave", exact: true }).click();
    await grace.page.getByText("You are not in this group any more").waitFor();
    await ada.page.getByRole("log").getByText("Grace left").waitFor();
  });

  it("log-out forgets everything on the device, log-in brings it back; a wrong word says so", async () => {
    const [ada] = await pair();
    await ada.page.locator("summary").click();
    await ada.page.getByRole("button", { name: "Log out" }).click();
    await ada.page.getByRole("button", { name: "Sign up" }).waitFor();
    const kept = await ada.page.evaluate(async () => [Object.keys(localStorage), (await indexedDB.databases()).map((it) => it.name)]);
    expect(kept).toEqual([[], []]);
    await ada.page.getByRole("button", { name: "Log in" }).click();
    await ada.page.getByLabel("Handle").fill(ada.handle);
    await ada.page.getByLabel("Password").fill("not the right one");
    await ada.page.getByRole("button", { name: "Log in" }).click();
    await ada.page.getByText("do not belong together").waitFor();
    await ada.page.getByLabel("Password").fill("correct horse battery");
    await ada.page.getByRole("button", { name: "Log in" }).click();
    await ada.open(/Grace/);
    await until("history is back", async () => (await placed(ada.page)).includes("hello"));
  });
});

describe("when something breaks", () => {
  it("node killed with -9 in a stream of sends: both end with every message once, in one order, without a reload", async () => {
    const [ada, grace] = await pair();
    const mark = (page: Person): Promise<void> => page.page.evaluate(() => void Object.assign(window, { same: true }));
    await Promise.all([mark(ada), mark(grace)]);
    const stream = async (who: Person, prefix: string): Promise<void> => {
      for (const text of counted(prefix, 40)) await who.say(text);
    };
    const streams = Promise.all([stream(ada, "a"), stream(grace, "g")]);
    for (let kills = 0; kills < 2; kills++) {
      const before = (await placed(grace.page)).length;
      await until("the stream flows", async () => (await placed(grace.page)).length > before + 6);
      await node.kill();
      await node.startAgain();
    }
    await streams;
    const expected = new Set(["hello", ...counted("a", 40), ...counted("g", 40)]);
    await until("all is there", async () => {
      const [a, g] = await Promise.all([placed(ada.page), placed(grace.page)]);
      return a.length >= expected.size && g.length >= expected.size;
    }, 60_000);
    const [a, g] = await Promise.all([bubbles(ada.page), bubbles(grace.page)]);
    expect(a).toEqual(g);
    expect(a).toHaveLength(expected.size);
    expect(new Set(a)).toEqual(expected);
    for (const prefix of ["a", "g"]) expect(a.filter((it) => it.startsWith(`${prefix} `))).toEqual(counted(prefix, 40));
    for (const who of [ada, grace]) expect(await who.page.evaluate(() => "same" in window)).toBe(true);
  });

  it("offline by the browser's switch, ten messages, tab closed, opened again online: ten messages, in order", async () => {
    const [ada, grace] = await pair();
    await ada.context.setOffline(true);
    await ada.page.getByText("You are offline").waitFor();
    for (const text of counted("later", 10)) await ada.say(text);
    await until("they wait here", async () => (await ada.page.locator(".row-pending").count()) === 10);
    expect(await placed(grace.page)).toEqual(["hello"]);
    await ada.page.locator("summary").click();
    await ada.page.getByRole("button", { name: "Log out" }).click();
    await ada.page.getByText("10 messages are not sent yet").waitFor();
    await ada.page.getByRole("button", { name: "Stay" }).click();
    await ada.page.close();
    await ada.context.setOffline(false);
    ada.page = await ada.newTab();
    await until("ten messages arrive", async () => (await placed(grace.page)).length === 11);
    expect(await placed(grace.page)).toEqual(["hello", ...counted("later", 10)]);
    await ada.open(/Grace/);
    await until("and are placed here", async () => (await placed(ada.page)).length === 11);
    expect(await bubbles(ada.page)).toEqual(["hello", ...counted("later", 10)]);
  });

  it("three tabs of one account: one outbox, equal unread, and another leads when the leader is closed", async () => {
    const [ada, grace] = await pair();
    const tabs = [ada.page, await ada.newTab(), await ada.newTab()];
    for (const tab of tabs.slice(1)) await tab.getByRole("link", { name: /Grace/ }).waitFor();
    for (const tab of tabs) await tab.evaluate(() => (location.hash = "#/"));
    await grace.say("for all tabs");
    for (const tab of tabs) await until("unread in every tab", async () => (await tab.locator(".badge").textContent().catch(() => "")) === "1 unread");
    await tabs[1]!.getByRole("link", { name: /Grace/ }).click();
    for (const tab of tabs) await until("read in every tab", async () => (await tab.locator(".badge").count()) === 0);

    for (const tab of tabs) await tab.getByRole("link", { name: /Grace/ }).click();
    const write = async (i: number, text: string): Promise<void> => {
      await field(tabs[i]!).fill(text);
      await field(tabs[i]!).press("Enter");
    };
    for (const i of [0, 1, 2]) await write(i, `from tab ${i}`);
    const expected = ["hello", "for all tabs", "from tab 0", "from tab 1", "from tab 2"];
    for (const tab of [...tabs, grace.page]) await until("all tabs show the same", async () => (await placed(tab)).join() === expected.join());

    // The first tab led. What is written in the others right behind its end goes out.
    await ada.context.setOffline(true);
    await write(1, "written offline in tab 1");
    await until("all tabs show it waiting", async () => (await tabs[2]!.locator(".row-pending").count()) === 1);
    await tabs[0]!.close();
    await write(2, "and in tab 2");
    await ada.context.setOffline(false);
    const all = [...expected, "written offline in tab 1", "and in tab 2"];
    for (const tab of [tabs[1]!, tabs[2]!, grace.page]) await until("they arrive", async () => (await placed(tab)).join() === all.join(), 40_000);
  });

  it("a second device of the account shows what the first sends, and its unread goes with the first's reading", async () => {
    const [ada, grace] = await pair();
    const phone = await Person.at(browser, node.url);
    people.push(phone);
    await phone.logIn(ada.handle);
    await phone.open(/Grace/);
    await until("history is here", async () => (await placed(phone.page)).includes("hello"));
    await ada.say("from the first");
    await phone.say("from the second");
    const expected = ["hello", "from the first", "from the second"];
    for (const who of [ada, grace, phone]) await until("all show the same", async () => (await placed(who.page)).length === 3);
    expect(new Set(await placed(phone.page))).toEqual(new Set(expected));
    expect(await placed(phone.page)).toEqual(await placed(ada.page));
  });
});

describe("text is text", () => {
  const CORPUS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "\"><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "<a href=\"javascript:alert(1)\">x</a>",
    "{{constructor.constructor('alert(1)')()}}",
    "</textarea><iframe srcdoc=\"<script>parent.alert(1)</script>\">",
    "<style>*{display:none}</style>",
    "&lt;b&gt;&amp;",
    "\u202Egnp.exe\u202C",
    `z${"\u0301".repeat(10_000)}algo`,
    "<math><mtext></p><style><img src onerror=alert(1)>",
  ];

  it("nothing of the corpus is ever HTML, as a message, a name or a title (A41)", async () => {
    const [ada, grace] = await Promise.all([person("Ada", "<img src=x onerror=alert(1)>"), person("Grace", "<b>Grace</b>")]);
    await ada.page.getByRole("button", { name: "New conversation" }).click();
    await ada.page.getByRole("button", { name: "A group" }).click();
    await ada.page.getByLabel("Name of the group").fill("<script>alert(1)</script>");
    await ada.page.getByLabel("Members").fill(grace.handle);
    await ada.page.getByRole("button", { name: "Make the group" }).click();
    await field(ada.page).waitFor();
    for (const text of CORPUS) await ada.say(text);
    await grace.open(/script/);
    for (const who of [ada, grace]) {
      await until("all of it is there", async () => (await placed(who.page)).length === CORPUS.length);
      const shown = await placed(who.page);
      CORPUS.forEach((text, i) => expect(shown[i]!.startsWith(text.slice(0, 2_000))).toBe(true));
      const elements = await who.page.locator("img, script:not([src]), iframe, style, .bubble a, .bubble svg, math").count();
      expect(elements).toBe(0);
    }
    // A tower of marks does not leave its bubble.
    const heights = await grace.page.locator(".row-bubble").evaluateAll((rows) => rows.map((row) => row.getBoundingClientRect().height));
    expect(Math.max(...heights)).toBeLessThan(400);
  });

  it("a megabyte that is pasted is refused with a word, and stays in the field", async () => {
    const [ada] = await pair();
    await field(ada.page).fill("x".repeat(1_000_000));
    await ada.page.getByText("Too long by 900,000 characters").waitFor();
    expect(await ada.page.getByRole("button", { name: "Send" }).isDisabled()).toBe(true);
    expect((await field(ada.page).inputValue()).length).toBe(1_000_000);
  });

  it("another origin may not open the socket (A10)", async () => {
    const { url } = node;
    const refused = await new Promise<boolean>((resolve) => {
      void import("node:http").then(({ request }) => {
        const headers = {
          Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
          "Sec-WebSocket-Protocol": "conch.1", Origin: "https://evil.example",
        };
        const asked = request(`${url}/v1/ws`, { headers }, (response) => resolve(response.statusCode === 403));
        asked.on("upgrade", () => resolve(false));
        asked.end();
      });
    });
    expect(refused).toBe(true);
  });
});

describe("reading back", () => {
  it("scrolls up through history without jumps, draws a bounded number of rows, and jumps to the newest", async () => {
    const [ada, grace] = await pair();
    const count = 400;
    // Through the page's own field it would take minutes: pasted as text, one per line, would be one message.
    await ada.page.evaluate(async (texts) => {
      const input = document.querySelector("textarea")!;
      const form = input.form!;
      const set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value")!.set!;
      for (const text of texts) {
        set.call(input, text);
        input.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise(requestAnimationFrame);
        form.requestSubmit();
        await new Promise(requestAnimationFrame);
      }
    }, counted("line", count));
    await until("all arrived", async () => (await placed(grace.page)).at(-1) === `line ${count}`, 60_000);

    // A fresh device, which holds the newest hundred only.
    const phone = await Person.at(browser, node.url);
    people.push(phone);
    await phone.logIn(grace.handle);
    await phone.open(/Ada/);
    await until("the newest is there", async () => (await placed(phone.page)).at(-1) === `line ${count}`);
    const list = phone.page.getByRole("log");
    const seen = new Set<string>();
    await until("the beginning", async () => {
      const jump = await list.evaluate(async (box) => {
        const rows = (): HTMLElement[] => [...box.querySelectorAll<HTMLElement>(".row-bubble")];
        box.scrollTop -= 300;
        await new Promise(requestAnimationFrame);
        const inView = rows().find((row) => row.getBoundingClientRect().top > box.getBoundingClientRect().top + 50);
        const [key, top] = [inView?.dataset["key"], inView?.getBoundingClientRect().top ?? 0];
        await new Promise((resolve) => setTimeout(resolve, 60));
        const after = key && box.querySelector<HTMLElement>(`[data-key="${CSS.escape(key)}"]`);
        return after ? Math.abs(after.getBoundingClientRect().top - top) : 0;
      });
      expect(jump).toBeLessThan(3);
      const texts = await placed(phone.page);
      expect(texts.length).toBeLessThanOrEqual(240);
      texts.forEach((text) => seen.add(text));
      return (await phone.page.getByText("This is the beginning").count()) > 0;
    }, 90_000);
    expect(seen.size).toBe(count + 1);
    await phone.page.getByRole("button", { name: /Newest|new/ }).last().click();
    await until("the newest again", async () => (await placed(phone.page)).at(-1) === `line ${count}`);
  });
});

describe("looks", () => {
  it("axe finds no violation: welcome, list and conversation, dialogs, both schemes", async () => {
    const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    const check = async (who: Person): Promise<void> => {
      await who.page.evaluate(`${axe}; 0`);
      const found = await who.page.evaluate(async () => {
        const run = (window as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe;
        return (await run.run()).violations.map((it) => `${it.id}: ${it.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`);
      });
      expect(found).toEqual([]);
    };
    const stranger = await Person.at(browser, node.url);
    people.push(stranger);
    await check(stranger);
    const [ada, grace] = await pair();
    await grace.say("good morning");
    await until("both are there", async () => (await placed(ada.page)).length === 2);
    for (const colorScheme of ["light", "dark"] as const) {
      await ada.page.emulateMedia({ colorScheme });
      await check(ada);
    }
    await ada.page.getByRole("button", { name: "New conversation" }).click();
    await ada.page.getByRole("button", { name: "A group" }).click();
    await check(ada);
  });

  it("screenshots of desktop and phone, light and dark", async () => {
    const folder = join(target, "page-screenshots");
    mkdirSync(folder, { recursive: true });
    const [ada, grace] = await Promise.all([person("ada", "Ada Lovelace"), person("grace", "Grace Hopper")]);
    await ada.page.getByRole("button", { name: "New conversation" }).click();
    await ada.page.getByRole("button", { name: "A group" }).click();
    await ada.page.getByLabel("Name of the group").fill("Harbour office");
    await ada.page.getByLabel("Members").fill(grace.handle);
    await ada.page.screenshot({ path: join(folder, "new-group.png") });
    await ada.page.getByRole("button", { name: "Make the group" }).click();
    await field(ada.page).waitFor();
    await ada.say("The tide turns at six. Who takes the first watch?");
    await grace.open(/Harbour/);
    await until("heard", async () => (await placed(grace.page)).length === 1);
    await grace.say("I do.");
    await grace.say("And then Linus, if he is awake by then. He was on deck until three last night, so let him sleep a little.");
    await until("heard", async () => (await placed(ada.page)).length === 3);
    await ada.say("Fair enough 🐚");
    await grace.writeTo(ada.handle);
    await grace.say("Did you see the light on the pier?");
    await until("two conversations", async () => (await ada.page.locator(".entry").count()) === 2);
    const looks = [
      { name: "desktop", viewport: { width: 1200, height: 760 } },
      { name: "phone", viewport: { width: 390, height: 800 } },
    ];
    for (const { name, viewport } of looks) {
      await ada.page.setViewportSize(viewport);
      for (const colorScheme of ["light", "dark"] as const) {
        await ada.page.emulateMedia({ colorScheme });
        await ada.page.screenshot({ path: join(folder, `${name}-${colorScheme}.png`) });
        if (name !== "phone") continue;
        await ada.page.evaluate(() => (location.hash = "#/"));
        await until("the list", () => ada.page.locator(".sidebar").isVisible());
        await ada.page.screenshot({ path: join(folder, `phone-list-${colorScheme}.png`) });
        await ada.open(/Harbour/);
        await ada.page.waitForTimeout(50);
      }
    }
    const stranger = await Person.at(browser, node.url, { viewport: { width: 1200, height: 760 } });
    people.push(stranger);
    await stranger.page.screenshot({ path: join(folder, "welcome.png") });
  });
});
