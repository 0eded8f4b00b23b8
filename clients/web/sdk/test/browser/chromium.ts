/**
 * A Chromium over its own debugging protocol, nothing between: playwright keeps every tab in the foreground, and here one must be
 * in the background.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WebSocket } from "ws";

const CANDIDATES = [process.env["CHROMIUM"], "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export class Chromium {
  private lastId = 0;
  private readonly waiting = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();

  private constructor(
    private readonly process: ChildProcess,
    private readonly folder: string,
    private readonly socket: WebSocket,
  ) {
    socket.on("message", (text: Buffer) => {
      const { id, result, error } = JSON.parse(text.toString()) as { id?: number; result?: unknown; error?: { message: string } };
      const waiting = id === undefined ? undefined : this.waiting.get(id);
      if (id !== undefined) this.waiting.delete(id);
      if (error) waiting?.reject(new Error(error.message));
      else waiting?.resolve(result);
    });
  }

  static async start(args: string[]): Promise<Chromium> {
    const program = CANDIDATES.find((it) => it && existsSync(it));
    if (!program) throw new Error("no Chromium: `make web-test` installs one");
    const folder = mkdtempSync(join(tmpdir(), "conch-chromium-"));
    const all = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0", `--user-data-dir=${folder}`, ...args];
    const child = spawn(program, [...all, "about:blank"], { stdio: ["ignore", "ignore", "pipe"] });
    let log = "";
    const address = await new Promise<string>((resolve, reject) => {
      child.once("exit", () => reject(new Error(`Chromium ended: ${log}`)));
      child.stderr!.on("data", (text: Buffer) => {
        log += text.toString();
        const found = /DevTools listening on (ws:\S+)/.exec(log)?.[1];
        if (found) resolve(found);
      });
    });
    const socket = new WebSocket(address);
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
    return new Chromium(child, folder, socket);
  }

  send<T>(method: string, params: object = {}, sessionId?: string): Promise<T> {
    this.lastId += 1;
    const id = this.lastId;
    return new Promise<T>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (result: unknown) => void, reject });
      this.socket.send(JSON.stringify({ id, method, params, sessionId }));
    });
  }

  /** A new tab in the one window; the one before goes into the background. Evaluates expressions of plain values. */
  async tab(url: string): Promise<(expression: string) => Promise<unknown>> {
    const { targetId } = await this.send<{ targetId: string }>("Target.createTarget", { url });
    const { sessionId } = await this.send<{ sessionId: string }>("Target.attachToTarget", { targetId, flatten: true });
    return async (expression) => {
      const params = { expression, returnByValue: true, awaitPromise: true };
      const { result } = await this.send<{ result: { value?: unknown } }>("Runtime.evaluate", params, sessionId);
      return result.value;
    };
  }

  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGKILL");
    await ended;
    this.socket.terminate();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
