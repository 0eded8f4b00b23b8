/** What an application pays: the SDK with its one dependency, and the entry beside it, minified and compressed. */

import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const ENTRIES = [
  ["SDK", "../src/index.ts", 30 * 1024],
  ["its view", "../src/browser/view.ts", 1024],
] as const;

it.each(ENTRIES)("%s (%s) is at most %i bytes", async (name, path, bytesMax) => {
  const entry = fileURLToPath(new URL(path, import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: "esm", target: "es2022", write: false });
  const bytes = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
  console.log(`${name}: ${bytes} bytes gzipped`);
  expect(bytes).toBeLessThanOrEqual(bytesMax);
});
