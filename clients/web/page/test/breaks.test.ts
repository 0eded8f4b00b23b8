/** What happens when something breaks: a node killed, no network, tabs closed, another device. */

import type { BrowserContext, Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { serverFrames } from "../../sdk/src/wire/server-frame.js";
import { encodeServerFrame } from "../../sdk/test/codec.js";
import { until } from "./node.js";
import { PASSWORD, type Person, bubbles, field, placed } from "./people.js";
import { Stage, counted } from "./stage.js";

const stage = Stage.forTests();

describe("when something breaks", () => {
  it("node killed with -9 in a stream of sends: both end with every message once, in one order, without a reload", async () => {
    const [ada, grace] = await stage.pair();
    const mark = (page: Person): Promise<void> => page.page.evaluate(() => void Object.assign(window, { same: true }));
    await Promise.all([mark(ada), mark(grace)]);
    const stream = async (who: Person, prefix: string): Promise<void> => {
      for (const text of counted(prefix, 25)) await who.say(text);
    };
    const expected = ["hello"];
    for (const round of [1, 2]) {
      const settled = expected.length;
      const prefixes = [`a${round}`, `g${round}`] as const;
      const streams = Promise.all([stream(ada, prefixes[0]), stream(grace, prefixes[1])]);
      await until("the stream flows", async () => (await placed(grace.page)).length > settled + 4);
      await stage.node.kill();
      await stage.node.startAgain();
      await streams;
      for (const prefix of prefixes) expected.push(...counted(prefix, 25));
      for (const who of [ada, grace]) await until("all of this round is there", async () => (await placed(who.page)).length >= expected.length, 60_000);
    }
    const [a, g] = await Promise.all([bubbles(ada.page), bubbles(grace.page)]);
    expect(a).toEqual(g);
    expect(a).toHaveLength(expected.length);
    expect(new Set(a)).toEqual(new Set(expected));
    for (const prefix of ["a1", "g1", "a2", "g2"]) expect(a.filter((it) => it.startsWith(`${prefix} `))).toEqual(counted(prefix, 25));
    for (const who of [ada, grace]) expect(await who.page.evaluate(() => "same" in window)).toBe(true);
  });

  it("offline by the browser's switch, ten messages, tab closed, opened again online: ten messages, in order", async () => {
    const [ada, grace] = await stage.pair();
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

  it("a message is shown as sending until the node has it, and what gathers behind it as waiting", async () => {
    const [ada] = await stage.pair();
    let held: (() => void)[] | null = null;
    await ada.page.routeWebSocket(/\/v1\/ws$/, (socket) => {
      const server = socket.connectToServer();
      server.onMessage((message) => (held ? void held.push(() => socket.send(message)) : socket.send(message)));
    });
    await ada.page.reload();
    await ada.say("one");
    await until("it is sent", async () => (await placed(ada.page)).join() === "hello,one");
    held = [];
    await ada.say("two");
    const state = (text: string): Promise<string | null> =>
      ada.page.locator(".row-pending", { hasText: text }).locator(".visually-hidden").textContent();
    await until("its answer is awaited", async () => (await state("two")) === "Sending");
    expect(await ada.page.locator(".entry-line").textContent()).toBe("Sending: two");
    await ada.say("three");
    await until("it waits", async () => (await state("three")) === "Waiting to be sent");
    expect(await state("two")).toBe("Sending");
    expect(await ada.page.locator(".entry-line").textContent()).toBe("Waiting: three");
    for (const pass of held.splice(0)) pass();
    held = null;
    await until("both are sent", async () => (await placed(ada.page)).join() === "hello,one,two,three");
  });

  it("three tabs of one account: one outbox, equal unread, and another leads when the leader is closed", async () => {
    const [ada, grace] = await stage.pair();
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
    for (const i of [0, 1, 2]) {
      await write(i, `from tab ${i}`);
      // Tabs are processes of their own: who writes next waits until the one before was heard.
      await until("the tab that leads has it", async () => (await bubbles(tabs[0]!)).at(-1) === `from tab ${i}`);
    }
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
    const [ada, grace] = await stage.pair();
    const phone = await stage.device(ada.handle);
    await phone.open(/Grace/);
    await until("history is here", async () => (await placed(phone.page)).includes("hello"));
    await ada.say("from the first");
    await phone.say("from the second");
    const expected = ["hello", "from the first", "from the second"];
    for (const who of [ada, grace, phone]) await until("all show the same", async () => (await placed(who.page)).length === 3);
    expect(new Set(await placed(phone.page))).toEqual(new Set(expected));
    expect(await placed(phone.page)).toEqual(await placed(ada.page));

    const unread = (page: Page): Promise<string> => page.locator(".badge").textContent({ timeout: 200 }).then((it) => it ?? "", () => "");
    await Promise.all([ada.close(), phone.close()]);
    await grace.say("one more");
    await grace.say("and another");
    for (const who of [ada, phone]) await until("unread on both", async () => (await unread(who.page)) === "2 unread");
    await ada.open(/Grace/);
    for (const who of [ada, phone]) await until("read on both", async () => (await unread(who.page)) === "");
    expect(await phone.page.locator(".conversation").count()).toBe(1);
    expect(await field(phone.page).count()).toBe(0);
  });

  it("a text that was refused stays, with why, over a reload and in all tabs; it is sent again or discarded", async () => {
    const author = await stage.author("Ada");
    const [grace, linus] = await Promise.all([stage.person("Grace"), stage.person("Linus")]);
    const channel = await author.group("Harbour", [grace.handle, linus.handle]);
    await author.write(channel, ["welcome"]);
    await Promise.all([grace.open(/Harbour/), linus.open(/Harbour/)]);
    await until("all are there", async () => (await placed(grace.page)).length === 1);
    await grace.context.setOffline(true);
    await grace.say("for the group");
    await grace.say("never mind");
    await until("both wait", async () => (await grace.page.locator(".row-pending").count()) === 2);
    await author.removeMember(channel, await author.userOf(grace.handle));
    await grace.context.setOffline(false);
    const refused = grace.page.locator(".meta-refused");
    await until("both are refused", async () => (await refused.count()) === 2);
    expect(await refused.first().textContent()).toContain("you are not in this conversation any more");
    await grace.page.reload();
    await until("both are still there", async () => (await refused.count()) === 2);
    await until("and the history", async () => (await placed(grace.page)).includes("welcome"));
    expect(await bubbles(grace.page)).toEqual(["welcome", "for the group", "never mind"]);
    expect(await refused.first().textContent()).toContain("you are not in this conversation any more");
    await grace.page.locator(".entry-line .icon").waitFor();

    const tab = await grace.newTab();
    await tab.getByRole("link", { name: /Harbour/ }).click();
    expect(await grace.page.getByRole("button", { name: "Edit" }).count()).toBe(0);
    await until("in another tab too", async () => (await tab.locator(".meta-refused").count()) === 2);
    await author.addMember(channel, grace.handle);
    await field(grace.page).waitFor();
    // Back into the field with it: written anew, or not.
    await grace.page.locator(".row-pending", { hasText: "never mind" }).getByRole("button", { name: "Edit" }).click();
    expect(await field(grace.page).inputValue()).toBe("never mind");
    await until("it is no refused text any more", async () => (await refused.count()) === 1);
    await field(grace.page).fill("");
    await grace.page.locator(".row-pending", { hasText: "for the group" }).getByRole("button", { name: "Send again" }).click();
    await until("it is heard", async () => (await placed(linus.page)).at(-1) === "for the group");
    for (const page of [grace.page, tab]) await until("nothing is left to decide", async () => (await page.locator(".row-pending").count()) === 0);
    await grace.page.reload();
    await until("nor after a reload", async () => (await placed(grace.page)).at(-1) === "for the group");
    expect(await grace.page.locator(".row-pending").count()).toBe(0);
    expect((await placed(linus.page)).filter((it) => it !== "welcome")).toEqual(["for the group"]);
  });

  it("a device that is logged out from another one forgets what it received; what it did not send is a draft after log-in", async () => {
    const [ada, grace] = await stage.pair();
    const phone = await stage.device(ada.handle);
    await phone.open(/Grace/);
    await until("history is here", async () => (await placed(phone.page)).includes("hello"));
    const tab = await phone.newTab();
    await tab.getByRole("link", { name: /Grace/ }).waitFor();
    await phone.context.setOffline(true);
    await phone.say("written too late");
    await until("it waits", async () => (await phone.page.locator(".row-pending").count()) === 1);
    await ada.menu("Devices");
    await until("both are listed", async () => (await ada.page.locator(".members li").count()) === 2);
    await ada.page.getByRole("dialog").getByRole("button", { name: /^Log out/ }).click();
    await ada.page.getByRole("button", { name: "Log out", exact: true }).click();
    await until("one is left", async () => (await ada.page.locator(".members li").count()) === 1);
    await phone.context.setOffline(false);
    for (const page of [phone.page, tab]) await page.getByText("is there again when you log in").waitFor();
    const kept = async (): Promise<number> => phone.page.evaluate(async () => (await indexedDB.databases()).length);
    await until("what was received is gone", async () => (await kept()) === 0);
    await phone.page.getByLabel("Handle").fill(ada.handle);
    await phone.page.getByLabel("Password").fill(PASSWORD);
    await phone.page.getByRole("button", { name: "Log in" }).click();
    await phone.open(/Grace/);
    expect(await field(phone.page).inputValue()).toBe("written too late");
    await field(phone.page).press("Enter");
    await until("now it is heard", async () => (await placed(grace.page)).at(-1) === "written too late");
  });

  it("logging out in one tab ends the others", async () => {
    const [ada] = await stage.pair();
    const tab = await ada.newTab();
    await tab.getByRole("link", { name: /Grace/ }).waitFor();
    await ada.menu("Log out");
    await tab.getByText("You logged out in another window.").waitFor();
    await ada.page.getByRole("button", { name: "Sign up" }).waitFor();
  });
});

describe("a newer server", () => {
  it("a newer minor version is chatted with; what it has that this page has not is said to be there", async () => {
    const [ada, grace] = await stage.pair();
    let welcomes = 0;
    await ada.page.routeWebSocket(/\/v1\/ws$/, (socket) => {
      const server = socket.connectToServer();
      server.onMessage((message) => {
        for (const { frame } of serverFrames(new Uint8Array(message as Buffer))) {
          if (frame.is === "welcome") {
            welcomes += 1;
            frame.minor = 9;
          }
          if (frame.is === "pushed" && new TextDecoder().decode(frame.event.tail) === "from the future") {
            Object.assign(frame.event, { kind: 9, tail: Uint8Array.of(1, 2, 3) });
          }
          socket.send(Buffer.from(encodeServerFrame(frame)));
          // Bit 7: may be skipped by who does not know it.
          socket.send(Buffer.from([0xbf, 3, 0, 0, 0, 0, 0, 0, 7, 7, 7]));
        }
      });
    });
    await ada.page.reload();
    await until("connected", async () => (await ada.page.locator(".connection").getAttribute("data-state")) === "online" && welcomes > 0);
    await grace.say("now");
    await grace.say("from the future");
    await ada.say("and on");
    await until("all of it is there", async () => (await placed(ada.page)).length === 4);
    expect(new Set(await placed(ada.page))).toEqual(new Set(["hello", "now", "Something that this page is too old to show", "and on"]));
    await until("and heard", async () => (await placed(grace.page)).includes("and on"));
  });

  it("a server with another page says so, and a reload takes it; what was typed stays", async () => {
    const [ada] = await stage.pair();
    await field(ada.page).fill("half a thought");
    await ada.page.route(`${stage.node.url}/`, async (route) => {
      // The node may be away at that moment.
      const answer = await route.fetch().catch(() => null);
      if (!answer) return route.abort();
      await route.fulfill({ response: answer, body: (await answer.text()).replaceAll(/index-[\w-]+\.js/g, "index-newer.js") });
    });
    await stage.node.kill();
    await stage.node.startAgain();
    await ada.page.getByText("The server has a newer version of this page").waitFor();
    await ada.page.unroute(`${stage.node.url}/`);
    await ada.page.getByRole("button", { name: "Reload" }).click();
    await field(ada.page).waitFor();
    expect(await field(ada.page).inputValue()).toBe("half a thought");
    await until("connected", async () => (await ada.page.locator(".connection").getAttribute("data-state")) === "online");
    expect(await ada.page.locator(".connection").textContent()).toBe("");
  });

  it("a server that was only started again is no newer one", async () => {
    const [ada, grace] = await stage.pair();
    await stage.node.kill();
    await stage.node.startAgain();
    await grace.say("back again");
    await until("it is heard", async () => (await placed(ada.page)).includes("back again"));
    expect(await ada.page.locator(".connection-news").count()).toBe(0);
  });
});

describe("storage", () => {
  const DENIED = async (context: BrowserContext): Promise<void> => {
    await context.addInitScript(() => {
      const denied = (): never => {
        throw new DOMException("denied", "SecurityError");
      };
      IDBFactory.prototype.open = denied;
      for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { get: denied });
    });
  };

  it("denied: the page says that it keeps nothing, works all the same, and asks before something is lost", async () => {
    const ada = await (await stage.stranger({}, DENIED)).signUp("Ada");
    const grace = await stage.person("Grace");
    await ada.page.getByText("This browser keeps nothing for this page").waitFor();
    await ada.writeTo(grace.handle);
    await ada.say("from memory");
    await grace.open(/Ada/);
    await until("it is heard", async () => (await placed(grace.page)).includes("from memory"));
    await grace.say("likewise");
    await until("and answered", async () => (await placed(ada.page)).includes("likewise"));
    await ada.context.setOffline(true);
    await ada.say("not sent yet");
    await until("it waits", async () => (await ada.page.locator(".row-pending").count()) === 1);
    const asked = ada.page.waitForEvent("dialog");
    await ada.page.close({ runBeforeUnload: true });
    expect((await asked).type()).toBe("beforeunload");
    ada.complaints.length = 0;
    await ada.context.setOffline(false);
    await until("who stayed loses nothing", async () => (await placed(grace.page)).at(-1) === "not sent yet");
  });

  it("full: a message that cannot be kept is not shown as sent, is back in the field, and goes out once there is room", async () => {
    const [ada, grace] = await stage.pair();
    // As where the quota is used up: nothing more can be written, what is there can be read.
    await ada.page.evaluate(() => {
      const { put } = IDBObjectStore.prototype;
      const full = { refusals: 0, freeSomeSpace: () => (IDBObjectStore.prototype.put = put) };
      IDBObjectStore.prototype.put = () => {
        full.refusals += 1;
        throw new DOMException("full", "QuotaExceededError");
      };
      Object.assign(window, { full });
    });
    const refusals = (): Promise<number> => ada.page.evaluate(() => (window as unknown as { full: { refusals: number } }).full.refusals);
    const long = "a thought of some length ".repeat(2_000).trim();
    await ada.say(long);
    await ada.page.getByText("it is back in the field").waitFor();
    await ada.page.getByText("This browser has no room for messages").waitFor();
    expect(await field(ada.page).inputValue()).toBe(long);
    expect(await bubbles(ada.page)).toEqual(["hello"]);
    expect(await placed(grace.page)).toEqual(["hello"]);
    await grace.say("are you there?");
    const before = await refusals();
    await ada.page.getByRole("button", { name: "Try again" }).click();
    await until("it was tried again, in vain", async () => (await refusals()) > before);
    expect(await placed(ada.page)).toEqual(["hello"]);
    await ada.page.evaluate(() => (window as unknown as { full: { freeSomeSpace(): void } }).full.freeSomeSpace());
    await ada.page.getByRole("button", { name: "Try again" }).click();
    await until("what was missed is there", async () => (await placed(ada.page)).includes("are you there?"));
    expect(await field(ada.page).inputValue()).toBe(long);
    await field(ada.page).press("Enter");
    await until("it is heard once", async () => (await placed(grace.page)).filter((it) => it.startsWith("a thought")).length === 1);
    expect(await placed(grace.page)).toHaveLength(3);
  });
});
