/** The conformance script, with this SDK as the client under test: every case, in processes of Node's (docs/conformance.md). */

import { execFile } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const program = process.env["CONCH_CONFORM"] ?? path("../../../../target/debug/conch-conform");

function run(file: string, args: string[]): Promise<{ code: number; text: string }> {
  return new Promise((resolve) => {
    execFile(file, args, { cwd: path(".."), maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) || 1 : 0, text: stdout + stderr }));
  });
}

it("passes every case of the conformance script over WebSocket", { timeout: 300_000 }, async () => {
  if (!existsSync(program)) throw new Error(`${program} is not there: \`make build\` builds it`);
  const built = await run(process.execPath, ["test/host/build.mjs"]);
  expect(built.code, built.text).toBe(0);
  const { code, text } = await run(program, ["run", "--client", `${process.execPath} dist-host/host.mjs`, "--jobs", "4", "--trace"]);
  const folder = path("../../../../conformance/scripts/");
  const cases = readdirSync(folder).map((name) => JSON.parse(readFileSync(folder + name, "utf8")) as { transports?: string[]; needs?: string[] });
  const ours = cases.filter((it) => !it.needs && (it.transports?.includes("websocket") ?? true));
  expect(text.slice(-20_000)).toContain(`${ours.length} passed, 0 failed`);
  expect(code).toBe(0);
});
