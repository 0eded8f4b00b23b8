/** What an application pays: the SDK with its one dependency, minified and compressed. */

import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const BYTES_MAX = 30 * 1024;

it(`is at most ${BYTES_MAX} bytes`, async () => {
  const entry = fileURLToPath(new URL("../src/index.ts", import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: "esm", target: "es2022", write: false });
  const bytes = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
  console.log(`SDK: ${bytes} bytes gzipped`);
  expect(bytes).toBeLessThanOrEqual(BYTES_MAX);
});
