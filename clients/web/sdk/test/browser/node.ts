/** A real node, started for a test on a free port. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const program = process.env["CONCH_PROGRAM"] ?? fileURLToPath(new URL("../../../../../target/debug/conch", import.meta.url));

export class Node {
  private constructor(
    readonly url: string,
    private readonly process: ChildProcess,
    private readonly folder: string,
  ) {}

  static async start(): Promise<Node> {
    if (!existsSync(program)) throw new Error(`${program} is not there: \`make build\` builds it`);
    const folder = mkdtempSync(join(tmpdir(), "conch-node-"));
    const ready = join(folder, "ready.json");
    const args = ["serve", "--dev", "--data", join(folder, "data"), "--http", "127.0.0.1:0", "--ready-file", ready];
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    let log = "";
    for (const stream of [child.stdout, child.stderr]) stream!.on("data", (text: Buffer) => (log += text.toString()));
    const end = Date.now() + 30_000;
    while (!existsSync(ready)) {
      if (child.exitCode !== null || Date.now() > end) throw new Error(`the node did not start: ${log}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return new Node((JSON.parse(readFileSync(ready, "utf8")) as { url: string }).url, child, folder);
  }

  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGKILL");
    await ended;
    rmSync(this.folder, { recursive: true, force: true });
  }
}
