/** Two people chat in a real Chromium: the plain course of things. */

import { describe, expect, it } from "vitest";
import { until } from "./node.js";
import { bubbles, field, placed } from "./people.js";
import { Stage, counted } from "./stage.js";

const stage = Stage.forTests();

describe("chat", () => {
  it("two people find each other by handle, chat, come back, and read back", async () => {
    const [ada, grace] = await stage.pair();
    await grace.say("good morning");
    await until("the answer is there", async () => (await placed(ada.page)).includes("good morning"));
    await ada.page.reload();
    await until("it is there after coming back", async () => (await placed(ada.page)).join() === "hello,good morning");
    expect(await placed(grace.page)).toEqual(["hello", "good morning"]);
  });

  it("unread and preview follow, and reading ends them", async () => {
    const [ada, grace] = await stage.pair();
    // What is on the screen counts as read a moment later: whoever leaves before has it unread.
    const line = grace.page.locator(".entry-line");
    await until("hello is read", async () => (await line.textContent()) === "hello" && (await grace.page.locator(".badge").count()) === 0);
    await grace.page.evaluate(() => (location.hash = "#/"));
    await ada.say("one");
    await ada.say("two");
    await until("unread", async () => (await grace.page.locator(".badge").textContent().catch(() => "")) === "2 unread");
    await until("the newest words stand there", async () => (await grace.page.locator(".entry-line").textContent()) === "two");
    await grace.open(/Ada/);
    await until("read", async () => (await grace.page.locator(".badge").count()) === 0);
  });

  it("a group: made, renamed, somebody added, removed, left", async () => {
    const [ada, grace, linus] = await Promise.all([stage.person("Ada"), stage.person("Grace"), stage.person("Linus")]);
    await ada.page.getByRole("button", { name: "New conversation" }).click();
    await ada.page.getByRole("button", { name: "A group" }).click();
    await ada.page.getByLabel("Name of the group").fill("Harbour");
    await ada.page.getByLabel("Members").fill(grace.handle);
    await ada.page.getByRole("button", { name: "Make the group" }).click();
    await field(ada.page).waitFor();
    await ada.say("welcome");
    await grace.open(/Harbour/);
    await until("the group's message", async () => (await placed(grace.page)).includes("welcome"));

    for (const who of [ada, grace]) await who.page.locator(".conversation-title p", { hasText: "2 members" }).waitFor();
    await ada.page.getByRole("button", { name: "Members" }).click();
    const rename = ada.page.getByRole("button", { name: "Rename" });
    expect(await rename.isDisabled()).toBe(true);
    await ada.page.getByLabel("Name of the group").fill("Harbour office");
    await rename.click();
    await ada.page.getByText("Renamed.").waitFor();
    await grace.page.getByRole("heading", { name: "Harbour office" }).waitFor();
    await grace.page.getByRole("link", { name: /Harbour office/ }).waitFor();
    await grace.page.getByRole("log").getByText("Ada renamed the group to “Harbour office”").waitFor();
    await ada.page.getByLabel("Add somebody by handle").fill("nobody.at.all");
    await ada.page.getByRole("button", { name: "Add", exact: true }).click();
    await ada.page.getByText("Nobody has the handle @nobody.at.all").waitFor();
    await ada.page.getByLabel("Add somebody by handle").fill(linus.handle);
    await ada.page.getByRole("button", { name: "Add", exact: true }).click();
    await linus.open(/Harbour/);
    await linus.say("hi all");
    await until("heard by all", async () => (await placed(grace.page)).includes("hi all"));
    for (const who of [ada, grace, linus]) await who.page.locator(".conversation-title p", { hasText: "3 members" }).waitFor();
    // The owner first, then by name.
    expect(await ada.page.locator(".members .member-name > span:first-child").allTextContents()).toEqual(["Ada (you)", "Grace", "Linus"]);
    await ada.page.getByRole("button", { name: `Remove ${linus.handle}` }).click();
    await ada.page.getByRole("button", { name: "Remove", exact: true }).click();
    await linus.page.getByText("You are not in this group any more").waitFor();
    await ada.page.getByRole("button", { name: "Close" }).click();

    await grace.page.getByRole("button", { name: "Members" }).click();
    await until("who is in it", async () => (await grace.page.locator(".members li").count()) === 2);
    // Who may not change the group is not offered to.
    expect(await grace.page.getByRole("button", { name: /Rename|Remove|^Add/ }).count()).toBe(0);
    await grace.page.getByRole("button", { name: "Leave the group" }).click();
    await grace.page.getByRole("button", { name: "Leave", exact: true }).click();
    await grace.page.getByText("You are not in this group any more").waitFor();
    await ada.page.getByRole("log").getByText("Grace left").waitFor();
  });

  it("offline, a group's members are those that this device knows of, also who came since", async () => {
    const author = await stage.author("Ada");
    const [grace, linus] = await Promise.all([stage.person("Grace"), stage.person("Linus")]);
    const channel = await author.group("Harbour", [grace.handle]);
    await author.write(channel, ["welcome"]);
    await grace.open(/Harbour/);
    await grace.page.locator(".conversation-title p", { hasText: "2 members" }).waitFor();
    await author.addMember(channel, linus.handle);
    await grace.page.getByRole("log").getByText(/added Linus/).waitFor();
    await grace.context.setOffline(true);
    await grace.page.getByText("You are offline").waitFor();
    await grace.page.getByRole("button", { name: "Members" }).click();
    await until("all are there", async () => (await grace.page.locator(".members li").count()) === 3);
    expect(await grace.page.locator(".members .member-name").allTextContents()).toEqual([
      `Ada@${author.handle} · owner`, `Grace (you)@${grace.handle}`, `Linus@${linus.handle}`,
    ]);
    expect(await grace.page.getByRole("log").getByText(/added Linus/).count()).toBe(1);
  });

  it("what cannot be taken back asks first: nothing happens before the answer, with the keyboard alone", async () => {
    const author = await stage.author("Ada");
    const ada = await stage.device(author.handle);
    const linus = await stage.person("Linus", "Linus T.");
    const channel = await author.group("Harbour", [linus.handle]);
    await author.write(channel, ["welcome"]);
    await ada.open(/Harbour/);
    const focus = (): Promise<string> =>
      ada.page.evaluate(() => {
        const it = document.activeElement as HTMLElement;
        return it.getAttribute("aria-label") ?? it.textContent ?? "";
      });
    const press = (key: string): Promise<void> => ada.page.keyboard.press(key);
    const asked: string[] = [];
    ada.page.on("request", (request) => void (request.method() === "DELETE" && asked.push(new URL(request.url()).pathname)));
    /** Presses a button, looks at the question, and takes both ways out of it. */
    const asks = async (button: string, question: string, no: string): Promise<void> => {
      await ada.page.getByRole("button", { name: button, exact: true }).focus();
      for (const wayOut of ["Escape", "Enter"]) {
        await press("Enter");
        await ada.page.getByRole("group", { name: question }).waitFor();
        expect(await focus()).toBe(no);
        await press(wayOut);
        await ada.page.getByRole("group", { name: question }).waitFor({ state: "detached" });
        expect(await focus()).toBe(button);
      }
      await press("Enter");
      await press("Shift+Tab");
    };

    await ada.page.getByRole("button", { name: "Members" }).click();
    await until("who is in it", async () => (await ada.page.locator(".members li").count()) === 2);
    await asks("Leave the group", "Leave for good? Somebody has to add you again.", "Stay");
    await press("Escape");
    await asks(`Remove ${linus.handle}`, "Remove Linus T. from the group?", "Keep");
    expect([asked, await focus(), await ada.page.locator(".members li").count()]).toEqual([[], "Remove", 2]);
    await press("Enter");
    await until("he is out", async () => (await ada.page.locator(".members li").count()) === 1);
    expect(asked).toHaveLength(1);
    // What had the focus went with him.
    await until("the focus is in the list", async () => (await focus()) === "Who is in the group");
    await press("Escape");
    await ada.page.getByRole("dialog").waitFor({ state: "detached" });

    await ada.menu("Devices");
    const devices = ada.page.locator(".members li");
    await until("both devices", async () => (await devices.count()) === 2);
    const name = (await devices.getByRole("button").textContent())!.replace("Log out ", "");
    await asks(`Log out ${name}`, `Log “${name}” out? Somebody has to log in there again.`, "Keep");
    expect([asked.length, await focus(), await devices.count()]).toEqual([1, "Log out", 2]);
    await press("Enter");
    await until("one is left", async () => (await devices.count()) === 1);
    expect(asked).toHaveLength(2);
    await until("the focus is in the list", async () => (await focus()) === "Where you are logged in");
  });

  it("log-out forgets everything on the device, log-in brings it back; a wrong word says so", async () => {
    const [ada] = await stage.pair();
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

  it("what the node answers after log-out is not written down", async () => {
    const [ada, linus] = await Promise.all([stage.person("Ada"), stage.person("Linus")]);
    let answer: (() => Promise<void>) | undefined;
    await ada.page.route(/\/v1\/users\?/, (route) => {
      answer = async () => {
        const [user] = /\d+/.exec(new URL(route.request().url()).search)!;
        await route.fulfill({ json: { users: [{ user_id: user, handle: linus.handle, display_name: "Linus" }] } });
      };
    });
    await linus.writeTo(ada.handle);
    await linus.say("ahoy");
    await until("Ada's page asks who that is", () => answer !== undefined);
    await ada.menu("Log out");
    await ada.page.getByRole("button", { name: "Sign up" }).waitFor();
    const answered = ada.page.waitForResponse(/\/v1\/users\?/);
    await answer!();
    await (await answered).finished();
    // One turn of the page more, in which it would have been.
    await ada.page.evaluate(() => new Promise((done) => setTimeout(done)));
    expect(await ada.page.evaluate(() => Object.keys(localStorage))).toEqual([]);
  });

  it("notes to oneself; somebody whom there is not; the same person twice is one conversation", async () => {
    const [ada, grace] = await Promise.all([stage.person("Ada"), stage.person("Grace")]);
    await ada.page.getByRole("button", { name: "Write to somebody" }).click();
    await ada.page.getByLabel("Their handle").fill("@nobody.at.all");
    await ada.page.getByRole("button", { name: "Start" }).click();
    await ada.page.getByText("Nobody has the handle @nobody.at.all").waitFor();
    await ada.page.getByLabel("Their handle").fill(` @${ada.handle.toUpperCase()} `);
    await ada.page.getByRole("button", { name: "Start" }).click();
    await ada.page.getByRole("heading", { name: "Notes to myself" }).waitFor();
    await ada.say("buy rope");
    await until("it is noted", async () => (await placed(ada.page)).join() === "buy rope");
    for (const who of [grace, grace]) await ada.writeTo(who.handle);
    expect(await ada.page.locator(".entry").count()).toBe(2);
  });

  it("with the keyboard alone: from the list into a conversation, a dialog and back, the focus goes where one is", async () => {
    const [ada, grace] = await stage.pair();
    const linus = await stage.person("Linus");
    await linus.writeTo(ada.handle);
    await linus.say("ahoy");
    await until("two conversations", async () => (await ada.page.locator(".entry").count()) === 2);
    const focus = (): Promise<string> =>
      ada.page.evaluate(() => {
        const it = document.activeElement as HTMLElement;
        return it.getAttribute("aria-label") ?? it.querySelector(".entry-title")?.textContent ?? it.textContent ?? "";
      });
    const press = (key: string): Promise<void> => ada.page.keyboard.press(key);
    expect(await focus()).toBe("Message to Grace");
    await ada.page.getByRole("link", { name: /Linus/ }).focus();
    await press("ArrowDown");
    expect(await focus()).toBe("Grace");
    await press("ArrowUp");
    expect(await focus()).toBe("Linus");
    await press("Enter");
    await until("in the field", async () => (await focus()) === "Message to Linus");
    await ada.page.keyboard.type("ahoy yourself");
    await press("Enter");
    await until("it is sent", async () => (await placed(linus.page)).at(-1) === "ahoy yourself");

    const summary = ada.page.locator(".menu summary");
    await summary.focus();
    await press("Enter");
    await press("Tab");
    expect(await focus()).toBe("Devices");
    await press("Enter");
    await ada.page.getByRole("dialog").waitFor();
    await press("Escape");
    await ada.page.getByRole("dialog").waitFor({ state: "detached" });
    expect(await focus()).toBe("Your account");
    await press("Enter");
    await press("Escape");
    expect(await ada.page.locator(".menu").getAttribute("open")).toBe(null);

    // From the head of the list on: new, account, conversations, messages, field, in the order of the screen.
    await ada.page.getByRole("button", { name: "New conversation" }).focus();
    const order: string[] = [];
    for (let i = 0; i < 6; i++) {
      order.push(await focus());
      await press("Tab");
    }
    expect(order).toEqual(["New conversation", "Your account", "Linus", "Grace", "Messages", "Message to Linus"]);
    await grace.say("and I?");
    await until("unread", async () => (await ada.page.locator(".badge").textContent({ timeout: 200 }).catch(() => "")) === "1 unread");
  });

  it("a device that is turned keeps what was open in front of it", async () => {
    const [ada] = await stage.pair();
    await ada.menu("Devices");
    await ada.page.setViewportSize({ width: 390, height: 844 });
    expect(await ada.page.locator(".sidebar").isVisible()).toBe(false);
    expect(await ada.page.getByRole("dialog", { name: "Devices" }).isVisible()).toBe(true);
    await ada.page.getByRole("button", { name: "Close" }).click();
    await ada.page.getByRole("dialog").waitFor({ state: "detached" });
    await ada.say("and can be written on");
  });

  it("on a phone: a list, a conversation, back, and the focus with it; Enter is a new line there", async () => {
    const phone = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };
    const [ada, grace] = await stage.pair(phone);
    expect(await ada.page.locator(".sidebar").isVisible()).toBe(false);
    await ada.page.getByRole("link", { name: "All conversations" }).tap();
    await ada.page.locator(".entry").waitFor();
    expect(await ada.page.evaluate(() => document.activeElement?.classList.contains("entry"))).toBe(true);
    await ada.page.locator(".entry").tap();
    await field(ada.page).waitFor();
    await until("the focus is at the head", () => ada.page.evaluate(() => document.activeElement?.tagName === "H2"));
    await field(ada.page).fill("one");
    await field(ada.page).press("Enter");
    await field(ada.page).pressSequentially("two");
    await ada.page.getByRole("button", { name: "Send" }).tap();
    await until("one message of two lines", async () => (await placed(grace.page)).at(-1) === "one\ntwo");
  });

  it("what others say is read out, once, and what is read back is not", async () => {
    const [ada, grace] = await stage.pair();
    const spoken = (): Promise<string> => ada.page.locator("[data-spoken]").textContent().then((it) => it ?? "");
    expect(await ada.page.getByRole("log").getAttribute("aria-live")).toBe("off");
    await grace.say("good morning");
    await until("it is read out", async () => (await spoken()) === "Grace: good morning");
    await ada.say("to you too");
    await until("one's own words are not", async () => (await placed(ada.page)).length === 3);
    expect(await spoken()).toBe("Grace: good morning");
    await ada.page.reload();
    await until("nor what was there", async () => (await placed(ada.page)).length === 3);
    expect(await spoken()).toBe("");
  });
});
