// Builds the package: one ESM bundle with its peers left out, and the declarations beside it.
import { execFileSync } from "node:child_process";
import { copyFileSync } from "node:fs";
import { build } from "esbuild";

await build({
  entryPoints: { index: "src/index.ts" },
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: "es2022",
  sourcemap: true,
  packages: "external",
});
execFileSync("tsc", ["-p", "tsconfig.build.json"], { stdio: "inherit", shell: process.platform === "win32" });
for (const licence of ["LICENSE-APACHE", "LICENSE-MIT"]) copyFileSync(`../../../${licence}`, licence);
