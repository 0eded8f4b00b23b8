// Bundles the host of the conformance script: `node test/host/build.mjs`, then `conch-conform run --client "node …/host.mjs"`.
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
await build({
  entryPoints: [here("main.ts")],
  outfile: here("../../dist-host/host.mjs"),
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  // Frames in the page's own bundle, everything else from node_modules.
  packages: "external",
});
