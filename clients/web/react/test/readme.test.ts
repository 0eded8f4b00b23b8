/** The example of README.md, as an application's own file: it passes the compiler. */

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

it("the example compiles", () => {
  const example = /```tsx\n(.*?)```/s.exec(readFileSync(path("../README.md"), "utf8"))?.[1];
  expect(example).toContain("useMessages(channel)");
  const folder = path("../dist-readme/");
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}example.tsx`, example!);
  const paths = { "@conch/sdk": ["../../sdk/src/index.ts"], "@conch/react": ["../src/index.ts"] };
  const config = { extends: "../tsconfig.json", compilerOptions: { paths }, include: ["example.tsx"] };
  writeFileSync(`${folder}tsconfig.json`, JSON.stringify(config));
  try {
    execFileSync(path("../../node_modules/.bin/tsc"), ["-p", `${folder}tsconfig.json`, "--noEmit"], { stdio: "pipe" });
  } catch (error) {
    throw new Error(String((error as { stdout?: Buffer }).stdout));
  }
});
