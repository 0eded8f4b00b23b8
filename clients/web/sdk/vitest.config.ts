import { defineConfig } from "vitest/config";

export default defineConfig({ test: { include: ["test/**/*.test.ts"], exclude: ["test/browser/**"], testTimeout: 240_000 } });
