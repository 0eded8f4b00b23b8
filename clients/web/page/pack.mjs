// Beside every built file of text its compressed twin, for browsers that take it; says what a first load costs.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const FIRST_LOAD_BYTES_MAX = 120 * 1024;
let bytes = 0;
for (const entry of readdirSync("dist", { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || entry.name.endsWith(".gz")) continue;
  const path = join(entry.parentPath, entry.name);
  const packed = gzipSync(readFileSync(path), { level: 9 });
  writeFileSync(`${path}.gz`, packed);
  bytes += packed.length;
}
console.log(`first load: ${bytes} bytes, compressed`);
if (bytes > FIRST_LOAD_BYTES_MAX) throw new Error(`more than ${FIRST_LOAD_BYTES_MAX}`);
