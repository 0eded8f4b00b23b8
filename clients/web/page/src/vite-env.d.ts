/// <reference types="vite/client" />

declare module "@conch/sdk/ticker?worker&url" {
  const url: string;
  export default url;
}

/** As far as this page uses them; not yet in every browser. */
interface Window {
  trustedTypes?: { createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): unknown } };
}
