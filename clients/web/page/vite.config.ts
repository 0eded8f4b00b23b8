import { defineConfig } from "vite";

// What the page is made of lies beside the node's own address: no other host, nothing inline, so that the policy of
// `gateway/src/http/page.rs` holds.
export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, sourcemap: false },
  server: { proxy: { "/v1": { target: process.env["CONCH"] ?? "http://127.0.0.1:8080", ws: true } } },
});
