/**
 * A tab in the background of a real Chromium, whose page timers ring once a minute, keeps its connection to a node that gives
 * up after seconds of silence (P-053).
 *
 * Chromium spares timers that were set while a message was handled, as a heartbeat's are; engines that are not tested here spare
 * none. So besides what the browser does, the page's own `setTimeout` is made to ring no sooner than after a minute.
 */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type RawData, WebSocketServer } from "ws";
import { SimServer } from "../sim-server.js";
import { Chromium } from "./chromium.js";

/** Scaled down from 25 s and 45 s: a minute without a timer is far beyond both. */
const [HEARTBEAT_MS, SILENCE_MAX_MS] = [3_000, 12_000];
/** A page timer that was due every half second came this late: the browser has slowed it down to one a minute. */
const SLOWED_MS = 20_000;

let http: Server;
let browser: Chromium;
const server = new SimServer(() => 0.99);
let connections = 0;
let idleEnds = 0;

beforeAll(async () => {
  server.faults = false;
  server.limits = { ...server.limits, heartbeatMs: HEARTBEAT_MS, silenceMaxMs: SILENCE_MAX_MS };
  server.createChannel("1", ["10", "20"]);
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("../../src/index.ts", import.meta.url))],
    bundle: true, format: "iife", globalName: "conch", target: "es2022", write: false,
  });
  http = createServer((request, response) => {
    response.setHeader("content-type", request.url === "/sdk.js" ? "text/javascript" : "text/html");
    response.end(request.url === "/sdk.js" ? outputFiles[0]!.text : '<!doctype html><title>Tab</title><script src="/sdk.js"></script>');
  });
  const sockets = new WebSocketServer({ server: http, path: "/v1/ws" });
  sockets.on("connection", (socket) => {
    connections += 1;
    const number = connections;
    let silence: NodeJS.Timeout | undefined;
    const heard = (): void => {
      clearTimeout(silence);
      silence = setTimeout(() => {
        idleEnds += 1;
        socket.close(4201);
      }, SILENCE_MAX_MS);
    };
    const flush = (): void => {
      for (const bytes of server.session(number)?.out.splice(0) ?? []) socket.send(bytes);
    };
    const pushes = setInterval(flush, 50);
    heard();
    socket.on("message", (bytes: RawData) => {
      heard();
      server.receive(number, "10", new Uint8Array(bytes as Buffer));
      flush();
    });
    socket.on("close", () => {
      clearTimeout(silence);
      clearInterval(pushes);
      server.cut(number);
    });
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  browser = await Chromium.start(["--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1"]);
});
afterAll(async () => {
  await browser?.end();
  http?.closeAllConnections();
  http?.close();
});

async function until(what: string, check: () => Promise<boolean>, withinMs: number): Promise<void> {
  const end = Date.now() + withinMs;
  while (!(await check())) {
    if (Date.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

it("keeps the connection while the page's own timers are slowed down to one a minute", { timeout: 240_000 }, async () => {
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const tab = await browser.tab(`${url}/`);
  await until("the page is loaded", async () => (await tab('typeof conch === "object" && document.readyState === "complete"')) === true, 20_000);
  await tab(`(async () => {
    const session = conch.Session.withTokens("${url}", { user: "10", device: "5" }, async () => "t");
    window.client = await conch.Client.open(session);
    window.latest = 0;
    const real = window.setTimeout;
    let last = performance.now();
    const ring = () => {
      window.latest = Math.max(window.latest, performance.now() - last);
      last = performance.now();
      real(ring, 500);
    };
    ring();
    window.slow = () => (window.setTimeout = (work, ms, ...rest) => real(work, Math.max(ms, 60_000), ...rest));
  })()`);
  await until("it is online", async () => (await tab("client.connection.is")) === "online", 20_000);
  await browser.tab("about:blank");
  await tab("void slow()");
  await until("it is in the background", async () => (await tab("document.visibilityState")) === "hidden", 20_000);
  await until("its timers are slowed down", async () => Number(await tab("window.latest")) > SLOWED_MS, 180_000);
  expect({ connections, idleEnds, state: await tab("client.connection.is") }).toEqual({ connections: 1, idleEnds: 0, state: "online" });
  server.say("1", "20", "to a tab in the background");
  await until("a message comes in", async () => (await tab('client.channelInfo("1").heldTo')) === 2, 10_000);
});
