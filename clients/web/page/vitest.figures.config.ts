import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

// Figures are taken with the program that people run, if it was built.
const release = fileURLToPath(new URL("../../../target/release/conch", import.meta.url));
const CONCH_PROGRAM = process.env["CONCH_PROGRAM"] ?? (existsSync(release) ? release : undefined);

export default defineConfig({
  test: {
    include: ["test/figures.ts"], testTimeout: 600_000, hookTimeout: 60_000, fileParallelism: false, disableConsoleIntercept: true,
    env: CONCH_PROGRAM ? { CONCH_PROGRAM } : {},
  },
});
