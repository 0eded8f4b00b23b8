/** A list in a real Chromium: loads at both ends as it is scrolled, draws a bounded number of rows, and nothing jumps. */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { type Browser, type Page, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";

const CANDIDATES = [process.env["CHROMIUM"], "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
let browser: Browser;
let page: Page;
const complaints: string[] = [];

beforeAll(async () => {
  const executablePath = CANDIDATES.find((it) => it && existsSync(it));
  if (!executablePath) throw new Error("no Chromium: `make web-test` installs one");
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const { outputFiles } = await build({
    entryPoints: [path("app.tsx")], bundle: true, write: false, format: "iife", jsx: "automatic",
    alias: { "@conch/sdk": path("../../../sdk/src/index.ts") }, define: { "process.env.NODE_ENV": '"development"' },
  });
  page = await browser.newPage();
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await page.setContent('<div id="app"></div>');
  await page.addScriptTag({ content: outputFiles[0]!.text });
  await page.waitForSelector('[data-seq="600"]');
});
afterAll(async () => browser?.close());

interface Step {
  jump: number;
  first: number;
  last: number;
  rows: number;
}

/** Scrolls by so many pixels, as a wheel does, and says how far what is in view moved besides, once everything has come. */
const scroll = (by: number): Promise<Step> =>
  page.evaluate(async (by) => {
    const box = document.getElementById("box")!;
    const frame = (): Promise<unknown> => new Promise(requestAnimationFrame);
    box.scrollTop += by;
    const edge = box.getBoundingClientRect().top;
    const inView = [...box.querySelectorAll<HTMLElement>("[data-seq]")].find((row) => row.getBoundingClientRect().bottom > edge + 100)!;
    const top = inView.getBoundingClientRect().top;
    for (let i = 0; i < 5; i++) await frame();
    const rows = [...box.querySelectorAll<HTMLElement>("[data-seq]")];
    const same = rows.find((row) => row.dataset["seq"] === inView.dataset["seq"]);
    const jump = same ? Math.abs(same.getBoundingClientRect().top - top) : 1e9;
    return { jump, first: Number(rows[0]!.dataset["seq"]), last: Number(rows.at(-1)!.dataset["seq"]), rows: rows.length };
  }, by);

const isAtEnd = (): Promise<boolean> =>
  page.evaluate(() => {
    const box = document.getElementById("box")!;
    return box.scrollHeight - box.scrollTop - box.clientHeight < 2;
  });

/** By the button, and there: until then it would take back what is scrolled. */
async function toNewest(): Promise<void> {
  const times = await page.evaluate<number>("window.arrived.times");
  await page.getByRole("button", { name: "Newest" }).click();
  await page.waitForFunction((times) => (window as unknown as { arrived: { times: number } }).arrived.times > times, times);
}

async function through(by: number, isThere: (step: Step) => boolean): Promise<void> {
  for (let steps = 0; steps < 400; steps++) {
    const step = await scroll(by);
    expect(step.jump).toBeLessThan(2);
    expect(step.rows).toBeLessThanOrEqual(200);
    if (isThere(step)) return;
  }
  throw new Error("the end was not reached");
}

it("scrolls through 600 messages up and down without a jump", async () => {
  expect(await isAtEnd()).toBe(true);
  await through(-700, (step) => step.first === 1);
  await through(700, (step) => step.last === 600);
  expect(complaints).toEqual([]);
});

it("a scroll of which no event has told yet stays, at the end and elsewhere, whatever is drawn", async () => {
  await toNewest();
  const moved = (): Promise<number> =>
    page.evaluate(async () => {
      const box = document.getElementById("box")!;
      const { fake } = window as unknown as { fake: { arrive(): void } };
      const edge = box.getBoundingClientRect().top;
      const row = [...box.querySelectorAll<HTMLElement>("[data-seq]")].find((it) => it.getBoundingClientRect().top > edge)!;
      const before = row.getBoundingClientRect().top;
      box.scrollTop -= 120;
      // Drawn before the browser tells that it was scrolled.
      fake.arrive();
      for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
      return Math.round(row.getBoundingClientRect().top - before);
    });
  for (let i = 0; i < 3; i++) expect(await moved()).toBe(120);
});

it("follows the newest at the end, stays where it is elsewhere, and goes back by a button", async () => {
  await toNewest();
  await page.waitForFunction(() => document.querySelector('[data-seq="603"]') !== null);
  await page.evaluate("window.fake.arrive()");
  await page.waitForSelector('[data-seq="604"]');
  expect(await isAtEnd()).toBe(true);
  await scroll(-300);
  const before = await page.evaluate(() => document.querySelector('[data-seq="598"]')!.getBoundingClientRect().top);
  await page.evaluate("for (let i = 0; i < 5; i++) window.fake.arrive()");
  await page.waitForSelector('[data-seq="609"]');
  expect(await page.evaluate(() => document.querySelector('[data-seq="598"]')!.getBoundingClientRect().top)).toBe(before);
  expect(await isAtEnd()).toBe(false);
  await toNewest();
  await page.waitForFunction(() => {
    const box = document.getElementById("box")!;
    return box.scrollHeight - box.scrollTop - box.clientHeight < 2;
  });
  expect(complaints).toEqual([]);
});
