/**
 * Every state of the page, on a phone and on a desktop, light and dark: nothing that axe objects to, and a picture of each in
 * `target/page-screenshots` for people to look at.
 */

import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { expect, it } from "vitest";
import { target, until } from "./node.js";
import { type Person, field, placed } from "./people.js";
import { Stage, counted } from "./stage.js";

const stage = Stage.forTests();
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const folder = join(target, "page-screenshots");
const SIZES = { desktop: { width: 1200, height: 760 }, phone: { width: 390, height: 844 } };
/** The smallest phone, and one that is turned: only that everything has its place in them. */
const NARROW = { small: { width: 320, height: 568 }, turned: { width: 844, height: 390 } };

/** Parts that are wider than their place, and so cannot be seen whole. */
const overflowing = (page: Page): Promise<string[]> =>
  page.evaluate(() => {
    const parts = document.querySelectorAll<HTMLElement>("html, dialog, .sidebar, .conversation, .messages, .composer, .welcome");
    return [...parts].filter((it) => it.scrollWidth > it.clientWidth).map((it) => `${it.className || it.tagName}: ${it.scrollWidth} in ${it.clientWidth}`);
  });

/** Looks at the state that this person's page is in. */
async function look({ page }: Person, name: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(`${axe}; 0`);
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      await page.screenshot({ path: join(folder, `${name}-${size}-${colorScheme}.png`) });
      const found = await page.evaluate(async () => {
        const { axe } = window as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } };
        return (await axe.run()).violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html.slice(0, 140)).join(" | ")}`);
      });
      expect(found, `${name}, ${size}, ${colorScheme}`).toEqual([]);
      expect(await overflowing(page), `${name}, ${size}`).toEqual([]);
    }
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  for (const [size, viewport] of Object.entries(NARROW)) {
    await page.setViewportSize(viewport);
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await page.screenshot({ path: join(folder, `${name}-${size}-light.png`) });
    expect(await overflowing(page), `${name}, ${size}`).toEqual([]);
  }
  await page.setViewportSize(SIZES.desktop);
}

it("before the chat: sign-up, log-in, and what went wrong", async () => {
  const stranger = await stage.stranger();
  await look(stranger, "sign-up");
  await stranger.page.getByLabel("Handle").fill("a b c");
  await stranger.page.getByLabel("Password").fill("correct horse");
  await stranger.page.getByRole("button", { name: "Sign up" }).click();
  await stranger.page.getByText("A handle has 3 to 32").waitFor();
  await look(stranger, "sign-up-error");
  await stranger.page.getByRole("button", { name: "Log in" }).click();
  await look(stranger, "log-in");
});

it("a fresh account: the empty list, and every way to begin", async () => {
  const [ada, grace] = await Promise.all([stage.person("Ada", "Ada Lovelace"), stage.person("Grace", "Grace Hopper")]);
  await look(ada, "empty");
  await ada.page.getByRole("button", { name: "New conversation" }).click();
  await ada.page.getByLabel("Their handle").fill("grase");
  await ada.page.getByRole("button", { name: "Start" }).click();
  await ada.page.getByText("Nobody has the handle").waitFor();
  await look(ada, "new-direct-error");
  await ada.page.getByRole("button", { name: "A group" }).click();
  await ada.page.getByLabel("Name of the group").fill("Harbour office");
  await ada.page.getByLabel("Members").fill(grace.handle);
  await ada.page.getByLabel("Members").press("Enter");
  await ada.page.getByRole("button", { name: `Leave out ${grace.handle}` }).waitFor();
  await look(ada, "new-group");
  await ada.page.keyboard.press("Escape");
  await ada.page.locator(".menu summary").click();
  await look(ada, "menu");
  // Changing its size may have closed it.
  if ((await ada.page.locator(".menu").getAttribute("open")) !== null) await ada.page.locator(".menu summary").click();
  await ada.menu("Devices");
  await until("this device", async () => (await ada.page.locator(".members li").count()) === 1);
  await look(ada, "devices");
});

it("a chat: list, group, unread line, members, offline, refused, left", async () => {
  const people = [stage.person("Ada", "Ada Lovelace"), stage.person("Grace", "Grace Hopper"), stage.person("Linus", "Linus T.")] as const;
  const [ada, grace, linus] = await Promise.all(people);
  const office = await stage.author("Harbour");
  const channel = await office.group("Harbour office of the northern islands, night watch", [ada.handle, grace.handle, linus.handle]);
  await office.write(channel, ["The tide turns at six. Who takes the first watch?"]);
  for (const who of [ada, grace, linus]) await who.open(/Harbour/);
  await until("heard", async () => (await placed(linus.page)).length === 1);
  await grace.say("I do.");
  await grace.say("And then Linus, if he is awake by then. He was on deck until three last night, so let him sleep a little.");
  await until("heard", async () => (await placed(linus.page)).length === 3);
  await linus.say("I am awake.");
  await until("heard", async () => (await placed(ada.page)).length === 4);
  await ada.say("Fair enough. Then it is Grace until two, Linus until six, and I make the coffee:\n  2 pots, strong\n  milk apart");
  await until("heard", async () => (await placed(grace.page)).length === 5);
  await look(ada, "group");

  await grace.writeTo(ada.handle);
  await grace.say("Did you see the light on the pier?");
  await linus.writeTo(ada.handle);
  for (const text of counted("Rope, fathom", 12)) await linus.say(text);
  await until("three conversations", async () => (await ada.page.locator(".badge").allTextContents()).includes("12 unread"));
  await field(ada.page).fill("What about the lamp?");
  await ada.page.locator(".entry", { has: ada.page.locator(".entry-title", { hasText: "Grace" }) }).click();
  await until("the draft", async () => (await ada.page.locator(".entry-draft").count()) === 1);
  await look(ada, "direct");
  await ada.close();
  await look(ada, "list");
  await ada.page.setViewportSize(SIZES.phone);
  await ada.open(/Linus/);
  await ada.page.locator(".unread-line").waitFor();
  await look(ada, "unread");

  await ada.open(/Harbour/);
  await ada.page.getByRole("button", { name: "Members" }).click();
  await until("four members", async () => (await ada.page.locator(".members li").count()) === 4);
  await look(ada, "members");
  await ada.page.getByRole("button", { name: "Leave the group" }).click();
  await look(ada, "leave");
  // Out of the question, then out of the dialog.
  for (let i = 0; i < 2; i++) await ada.page.keyboard.press("Escape");

  await ada.context.setOffline(true);
  await ada.page.getByText("You are offline").waitFor();
  await field(ada.page).fill("Until then I am under deck.");
  await field(ada.page).press("Enter");
  await until("it waits", async () => (await ada.page.locator(".row-pending").count()) === 1);
  const animation = (): Promise<string> => ada.page.locator(".row-pending .bubble").evaluate((it) => getComputedStyle(it).animationName);
  await ada.page.emulateMedia({ reducedMotion: "no-preference" });
  expect(await animation()).toBe("rise");
  await ada.page.emulateMedia({ reducedMotion: "reduce" });
  expect(await animation()).toBe("none");
  await look(ada, "offline");
  await ada.menu("Log out");
  await ada.page.getByText("One message is not sent yet").waitFor();
  await look(ada, "log-out");
  await ada.page.getByRole("button", { name: "Stay" }).click();
  await office.removeMember(channel, await office.userOf(ada.handle));
  await ada.context.setOffline(false);
  await ada.page.getByText("You are not in this group any more").waitFor();
  await until("it is refused", async () => (await ada.page.locator(".meta-refused").count()) === 1);
  await look(ada, "refused-left");
  await ada.page.evaluate(() => (location.hash = "#/c/42"));
  await ada.page.getByText("not yours, or not here yet").waitFor();
  await look(ada, "not-there");
});
