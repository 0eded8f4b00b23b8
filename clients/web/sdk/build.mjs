// Builds the package: ESM bundles with `flatbuffers` left to the installer, and the declarations beside them.
import { execFileSync } from "node:child_process";
import { copyFileSync } from "node:fs";
import { build } from "esbuild";

await build({
  entryPoints: { index: "src/index.ts", ticker: "src/browser/ticker.ts", view: "src/browser/view.ts" },
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: "es2022",
  sourcemap: true,
  external: ["flatbuffers"],
});
execFileSync("tsc", ["-p", "tsconfig.build.json"], { stdio: "inherit", shell: process.platform === "win32" });
for (const licence of ["LICENSE-APACHE", "LICENSE-MIT"]) copyFileSync(`../../../${licence}`, licence);
