/**
 * How large, how fast, how much memory: figures of the SDK and the page, taken with a real node in a real Chromium. Nothing is
 * asserted. They go to the screen and into `target/page-figures.json`; take them on a machine that does nothing else.
 */

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import type { Page } from "playwright-core";
import { afterAll, it } from "vitest";
import { program, target, until } from "./node.js";
import { field, placed } from "./people.js";
import { Stage, counted } from "./stage.js";

const stage = Stage.forTests();
const figures: Record<string, string> = { program };
const COLD_STARTS = 10;
const CONVERSATIONS = 50;
const MESSAGES_EACH = 100;
const SENDS = 1_000;
/** Between two sends: a person types slower, but a thousand have an end this way. */
const SEND_EVERY_MS = 40;

const put = (name: string, value: string): void => {
  figures[name] = value;
  console.log(`${name.padEnd(52)} ${value}`);
};
const quantile = (values: number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(Math.floor(values.length * share), values.length - 1)] ?? NaN;
const spread = (values: number[]): string => `p50 ${quantile(values, 0.5).toFixed(0)} ms, worst of ${values.length}: ${Math.max(...values).toFixed(0)} ms`;

afterAll(() => writeFileSync(join(target, "page-figures.json"), `${JSON.stringify(figures, null, 2)}\n`));

it("sizes", async () => {
  const entry = fileURLToPath(new URL("../../sdk/src/index.ts", import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: "esm", target: "es2022", write: false });
  put("SDK with flatbuffers, minified and gzipped", `${gzipSync(outputFiles[0]!.contents, { level: 9 }).length} bytes`);
  const dist = fileURLToPath(new URL("../dist", import.meta.url));
  const packed = readdirSync(dist, { recursive: true, encoding: "utf8" }).filter((it) => it.endsWith(".gz"));
  const bytes = packed.map((it) => readFileSync(join(dist, it)).length);
  put("page, all files of it gzipped", `${bytes.reduce((a, b) => a + b, 0)} bytes`);
});

/** Notes when there is something to type into, behind the frame that shows it. */
const watchForField = (): void => {
  const onFocus = ({ target }: FocusEvent): void => {
    if (!(target as Element).matches("input[name=handle], .composer textarea")) return;
    document.removeEventListener("focusin", onFocus);
    requestAnimationFrame(() => setTimeout(() => Object.assign(window, { readyAt: performance.now() })));
  };
  document.addEventListener("focusin", onFocus);
};
const timesOf = async (page: Page): Promise<{ paint: number; ready: number }> => {
  const ready = await until("ready to type", () => page.evaluate(() => (window as unknown as { readyAt?: number }).readyAt));
  const paint = await until("painted", () => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime));
  return { paint, ready };
};

it("cold start", async () => {
  const [paints, readies] = [[] as number[], [] as number[]];
  let transferred = 0;
  for (let i = 0; i < COLD_STARTS; i++) {
    const context = await stage.browser.newContext();
    await context.addInitScript(watchForField);
    const page = await context.newPage();
    const cdp = await context.newCDPSession(page);
    await cdp.send("Network.enable");
    let bytes = 0;
    cdp.on("Network.loadingFinished", (it) => (bytes += it.encodedDataLength));
    await page.goto(stage.node.url);
    const { paint, ready } = await timesOf(page);
    paints.push(paint);
    readies.push(ready);
    transferred = bytes;
    await context.close();
  }
  put("cold cache, sign-up: bytes transferred, with headers", `${transferred} bytes`);
  put("cold cache, sign-up: first paint", spread(paints));
  put("cold cache, sign-up: ready to type", spread(readies));
});

it("cold start into a conversation", async () => {
  const [ada] = await stage.pair();
  await ada.context.addInitScript(watchForField);
  const cdp = await ada.context.newCDPSession(ada.page);
  const [paints, readies] = [[] as number[], [] as number[]];
  for (let i = 0; i < COLD_STARTS; i++) {
    await cdp.send("Network.clearBrowserCache");
    await ada.page.reload();
    const { paint, ready } = await timesOf(ada.page);
    paints.push(paint);
    readies.push(ready);
  }
  put("cold cache, logged in: first paint", spread(paints));
  put("cold cache, logged in: ready to type in a conversation", spread(readies));
});

async function heap(page: Page): Promise<{ bytes: number; nodes: number }> {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Performance.enable");
  await cdp.send("HeapProfiler.collectGarbage");
  await cdp.send("HeapProfiler.collectGarbage");
  const { metrics } = await cdp.send("Performance.getMetrics");
  const metric = (name: string): number => metrics.find((it) => it.name === name)?.value ?? NaN;
  return { bytes: metric("JSHeapUsedSize"), nodes: metric("Nodes") };
}

it("memory", async () => {
  const author = await stage.author("Ada");
  const grace = await stage.person("Grace");
  const said = ({ bytes, nodes }: { bytes: number; nodes: number }): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB of JS heap, ${nodes} DOM nodes`;
  put("memory, empty list", said(await heap(grace.page)));
  for (let i = 1; i <= CONVERSATIONS; i++) {
    await author.write(await author.group(`Group ${i}`, [grace.handle]), counted(`words of group ${i}, number`, MESSAGES_EACH));
  }
  // As it is for who comes back: all of it on the device, the page opened anew.
  await until("all are there", async () => (await grace.page.locator(".badge").count()) === CONVERSATIONS, 120_000);
  await grace.page.reload();
  await until("all are drawn", async () => (await grace.page.locator(".entry-line", { hasText: `number ${MESSAGES_EACH}` }).count()) === CONVERSATIONS);
  put(`memory, ${CONVERSATIONS} conversations of ${MESSAGES_EACH} messages in the list`, said(await heap(grace.page)));
  for (let i = 1; i <= CONVERSATIONS; i++) {
    await grace.page.locator(".entry", { has: grace.page.getByText(`Group ${i}`, { exact: true }) }).click();
    await until("it is open", async () => (await placed(grace.page)).some((it) => it.startsWith(`words of group ${i},`)));
  }
  put(`memory, after opening each of the ${CONVERSATIONS}`, said(await heap(grace.page)));
});

it("from send to display in the other window", async () => {
  const [ada, grace] = await stage.pair();
  await grace.page.evaluate(() => {
    const shown: Record<string, number> = {};
    Object.assign(window, { shown });
    const seen = new MutationObserver((changes) => {
      for (const { addedNodes } of changes) {
        for (const node of addedNodes) {
          const text = node instanceof Element ? node.querySelector(".bubble")?.textContent : null;
          // Behind the frame that it is drawn in.
          if (text) setTimeout(() => (shown[text] ??= performance.timeOrigin + performance.now()));
        }
      }
    });
    seen.observe(document.querySelector("[role=log]")!, { subtree: true, childList: true });
  });
  const sent = await ada.page.evaluate(
    async ({ count, every }) => {
      const at: Record<string, number> = {};
      const input = document.querySelector("textarea")!;
      const set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value")!.set!;
      for (let i = 1; i <= count; i++) {
        set.call(input, `number ${i}`);
        input.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise((resolve) => setTimeout(resolve, every));
        at[`number ${i}`] = performance.timeOrigin + performance.now();
        input.form!.requestSubmit();
      }
      return at;
    },
    { count: SENDS, every: SEND_EVERY_MS },
  );
  await until("all are shown", async () => (await placed(grace.page)).at(-1) === `number ${SENDS}`, 60_000);
  await field(grace.page).focus();
  const shown = await grace.page.evaluate(() => (window as unknown as { shown: Record<string, number> }).shown);
  const times = Object.entries(sent).map(([text, at]) => (shown[text] ?? NaN) - at);
  const missing = times.filter(Number.isNaN).length;
  put(`send to display, ${SENDS} messages, ${1000 / SEND_EVERY_MS} a second`,
    `p50 ${quantile(times, 0.5).toFixed(1)} ms, p99 ${quantile(times, 0.99).toFixed(1)} ms, worst ${Math.max(...times).toFixed(1)} ms${missing ? `, ${missing} not seen` : ""}`);
});
