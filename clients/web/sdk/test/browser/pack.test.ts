/**
 * The packages as others get them: packed, installed into an empty application, and the README's example compiled and run there
 * against a real node, in Node and in a real Chromium.
 */

import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Chromium } from "./chromium.js";
import { Node } from "./node.js";

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const app = mkdtempSync(join(tmpdir(), "conch-app-"));
let node: Node;
let packed: { sdk: string[]; react: string[] };

function run(program: string, args: string[], cwd: string): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { cwd, maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      error ? reject(new Error(`${program} ${args.join(" ")}: ${stdout}${stderr}`)) : resolve(stdout));
  });
}

async function pack(folder: string): Promise<{ file: string; files: string[] }> {
  const said = await run("npm", ["pack", "--json", "--silent", "--pack-destination", app], path(folder));
  const [it] = JSON.parse(said.slice(said.indexOf("["))) as { filename: string; files: { path: string }[] }[];
  return { file: it!.filename, files: it!.files.map(({ path }) => path).sort() };
}

/** The README's example, for this node and this person. */
function example(handle: string): string {
  const code = /```ts\n(.*?)```/s.exec(readFileSync(path("../../README.md"), "utf8"))![1]!;
  expect(code.trim().split("\n").filter((line) => line.trim() !== "").length).toBeLessThanOrEqual(20);
  const own = code.replace("http://127.0.0.1:8080", node.url).replace('"ada"', `"${handle}"`);
  expect(own).not.toBe(code);
  return own;
}

/** The README's second example, to stand behind the first. */
function viewed(): string {
  const code = [...readFileSync(path("../../README.md"), "utf8").matchAll(/```ts\n(.*?)```/gs)][1]![1]!;
  expect(code).toContain("@conch/sdk/view");
  return `declare function draw(it: unknown): void;\n${code}`;
}

beforeAll(async () => {
  node = await Node.start();
  const [sdk, react] = [await pack("../.."), await pack("../../../react")];
  packed = { sdk: sdk.files, react: react.files };
  writeFileSync(join(app, "package.json"), JSON.stringify({ name: "an-app", private: true, type: "module" }));
  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", `./${sdk.file}`], app);
  const body = JSON.stringify({ handle: "grace", password: "correct horse battery" });
  const signedUp = await fetch(`${node.url}/v1/accounts`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  expect(signedUp.status).toBe(201);
}, 240_000);
afterAll(async () => {
  await node?.end();
  rmSync(app, { recursive: true, force: true });
});

it("the packages hold what they should, and nothing else", () => {
  for (const files of Object.values(packed)) {
    expect(files).toEqual(expect.arrayContaining(["LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist/index.js", "dist/types/index.d.ts", "package.json"]));
    const others = files.filter((it) => !/^(LICENSE-\w+|README\.md|package\.json|dist\/(index|ticker|view)\.js(\.map)?|dist\/types\/.*\.d\.ts)$/.test(it));
    expect(others).toEqual([]);
  }
  expect(packed.sdk).toEqual(expect.arrayContaining(["dist/ticker.js", "dist/view.js", "dist/types/browser/view.d.ts"]));
  const installed = join(app, "node_modules");
  const manifest = JSON.parse(readFileSync(join(installed, "@conch/sdk/package.json"), "utf8")) as Record<string, unknown>;
  expect(Object.keys(manifest["dependencies"] as object)).toEqual(["flatbuffers"]);
  expect(manifest["license"]).toBe("Apache-2.0 OR MIT");
  const locked = JSON.parse(readFileSync(join(app, "package-lock.json"), "utf8")) as { packages: object };
  expect(Object.keys(locked.packages).sort()).toEqual(["", "node_modules/@conch/sdk", "node_modules/flatbuffers"]);
  const react = JSON.parse(readFileSync(path("../../../react/package.json"), "utf8")) as Record<string, object>;
  expect([react["dependencies"], Object.keys(react["peerDependencies"]!)]).toEqual([undefined, ["@conch/sdk", "react"]]);
});

it("the README's examples compile in both ways of finding modules, with the declarations checked", async () => {
  writeFileSync(join(app, "example.ts"), `${example("ada")}\n${viewed()}`);
  for (const [module, moduleResolution] of [["ESNext", "Bundler"], ["NodeNext", "NodeNext"]]) {
    const compilerOptions = {
      module, moduleResolution, target: "ES2022", lib: ["ES2023", "DOM"], types: [], strict: true, noEmit: true, skipLibCheck: false,
    };
    writeFileSync(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["example.ts"] }));
    await run(path("../../../node_modules/.bin/tsc"), ["-p", app], app);
  }
});

const SHOWN = `
import { View } from "@conch/sdk/view";
const view = await View.open(client, channel.id, 10);
console.log("shows", (await view.items()).at(-1)!.message.channel === channel.id);
`;
const EXPECTED = [/^\d+: hello$/, /^{.*is.*stored.*seq.*2.*}$/];

it("the README's example runs in Node", async () => {
  // What the README says of Node before 22; and an end, because a chat client has none.
  writeFileSync(join(app, "sockets.mjs"), `import { WebSocket } from ${JSON.stringify(path("../../../node_modules/ws/wrapper.mjs"))};\nglobalThis.WebSocket ??= WebSocket;\n`);
  writeFileSync(join(app, "in-node.ts"), `import "./sockets.mjs";\n${example("ada-in-node")}${SHOWN}await client.close();\n`);
  await build({ entryPoints: [join(app, "in-node.ts")], outfile: join(app, "in-node.mjs"), format: "esm", target: "node20", packages: "external" });
  const lines = (await run(process.execPath, ["in-node.mjs"], app)).trim().split("\n");
  for (const expected of [...EXPECTED, /^shows true$/]) expect(lines).toContainEqual(expect.stringMatching(expected));
});

it("the README's example, bundled, runs in Chromium", { timeout: 120_000 }, async () => {
  writeFileSync(join(app, "in-page.ts"), example("ada-in-page"));
  const { outputFiles } = await build({ entryPoints: [join(app, "in-page.ts")], bundle: true, format: "esm", target: "es2022", minify: true, write: false });
  // One origin for page and node, as behind any proxy.
  const upstream = new URL(node.url);
  const server = createServer((asked, answer) => {
    if (!asked.url!.startsWith("/v1/")) {
      answer.setHeader("content-type", asked.url === "/app.js" ? "text/javascript" : "text/html");
      answer.end(asked.url === "/app.js" ? code : '<!doctype html><title>App</title><script>lines=[];console.log=(...it)=>lines.push(it.map((one)=>typeof one==="string"?one:JSON.stringify(one)).join(" "))</script><script type="module" src="/app.js"></script>');
      return;
    }
    const { hostname, port } = upstream;
    const passed = request({ hostname, port, method: asked.method, path: asked.url, headers: asked.headers }, (it) => {
      answer.writeHead(it.statusCode!, it.headers);
      it.pipe(answer);
    });
    asked.pipe(passed);
  });
  server.on("upgrade", (asked, socket, head) => {
    const { hostname, port } = upstream;
    const passed = request({ hostname, port, path: asked.url, headers: asked.headers });
    passed.on("upgrade", (it, other, first) => {
      const headers = Object.entries(it.headers).map(([name, value]) => `${name}: ${String(value)}\r\n`).join("");
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${headers}\r\n`);
      other.write(head);
      socket.write(first);
      other.pipe(socket).on("error", () => other.destroy());
      socket.pipe(other).on("error", () => socket.destroy());
    });
    passed.on("response", () => socket.destroy());
    passed.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const code = outputFiles[0]!.text.replaceAll(node.url, origin);
  const browser = await Chromium.start([]);
  try {
    const tab = await browser.tab(`${origin}/`);
    const end = Date.now() + 60_000;
    let lines: string[] = [];
    while (!EXPECTED.every((expected) => lines.some((line) => expected.test(line)))) {
      if (Date.now() > end) throw new Error(`it said ${JSON.stringify(lines)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
      lines = ((await tab("typeof lines === 'object' ? lines : []")) as string[] | undefined) ?? [];
    }
  } finally {
    await browser.end();
    server.closeAllConnections();
    server.close();
  }
});
