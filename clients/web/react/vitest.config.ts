import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic" } },
  // The SDK's sources, so that a test sees what is there and not what was built before.
  resolve: { alias: { "@conch/sdk": fileURLToPath(new URL("../sdk/src/index.ts", import.meta.url)) } },
  test: { include: ["test/**/*.test.{ts,tsx}"], exclude: ["test/browser/**"], testTimeout: 60_000 },
});
