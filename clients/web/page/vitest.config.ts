import { defineConfig } from "vitest/config";

// One file at a time: the tests time real processes on a small machine.
export default defineConfig({ test: { include: ["test/**/*.test.ts"], testTimeout: 240_000, hookTimeout: 120_000, fileParallelism: false } });
