/** The API pages: every exported name and every method has a word (`docs/typedoc.json` makes a missing one an error), and no link is dead. */

import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

it("every exported name of both packages is documented", { timeout: 180_000 }, async () => {
  const folder = fileURLToPath(new URL("../../docs", import.meta.url));
  const out = `${folder}/../dist-docs-test`;
  const args = [`${folder}/node_modules/typedoc/bin/typedoc`, "--options", `${folder}/typedoc.json`, "--out", out];
  const { code, text } = await new Promise<{ code: number; text: string }>((resolve) => {
    execFile(process.execPath, args, { cwd: folder }, (error, stdout, stderr) => resolve({ code: error ? 1 : 0, text: stdout + stderr }));
  });
  expect(text).not.toContain("[warning]");
  expect([code, text]).toEqual([0, expect.any(String)]);
  expect(readdirSync(`${out}/classes`)).toContain("_conch_sdk.Client.html");
});
