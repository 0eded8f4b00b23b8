/** A real node for the tests: started, killed with -9, started again on the same port and folder. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../..", import.meta.url));
export const program = process.env["CONCH_PROGRAM"] ?? join(root, "target/debug/conch");

export const target = join(root, "target");

export async function until<T>(what: string, check: () => T | Promise<T>, withinMs = 40_000): Promise<NonNullable<T>> {
  const end = Date.now() + withinMs;
  for (;;) {
    const value = await check();
    if (value) return value as NonNullable<T>;
    if (Date.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export class Node {
  private readonly folder = mkdtempSync(join(tmpdir(), "conch-page-"));
  private readonly ready = join(this.folder, "ready.json");
  private process: ChildProcess | null = null;
  private log = "";
  url = "";

  static async start(): Promise<Node> {
    const node = new Node();
    await node.start("127.0.0.1:0");
    return node;
  }

  private async start(http: string): Promise<void> {
    rmSync(this.ready, { force: true });
    const settings = {
      // Tests sign up and write faster than people.
      CONCH_LIMITS__SENDS_PER_USER__PER_S: "5000",
      CONCH_LIMITS__SENDS_PER_USER__BURST: "20000",
    };
    const args = ["serve", "--dev", "--data", join(this.folder, "data"), "--http", http, "--ready-file", this.ready];
    const child = spawn(program, args, { env: { ...process.env, ...settings }, stdio: ["ignore", "pipe", "pipe"] });
    this.process = child;
    for (const stream of [child.stdout, child.stderr]) stream!.on("data", (text: Buffer) => (this.log += text.toString()));
    await until("the node is ready", () => {
      if (child.exitCode !== null) throw new Error(`the node ended: ${this.log}`);
      return existsSync(this.ready);
    });
    this.url = (JSON.parse(readFileSync(this.ready, "utf8")) as { url: string }).url;
  }

  /** As the kernel or a power cut would: nothing is flushed, nobody is told. */
  async kill(): Promise<void> {
    const { process: child } = this;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  async startAgain(): Promise<void> {
    await this.start(new URL(this.url).host);
  }

  async end(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
