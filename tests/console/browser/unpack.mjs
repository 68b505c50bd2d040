// Unpack the browser of the tests, with the libraries and the fonts that a machine may lack, into node_modules.
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";

const packed = join(import.meta.dirname, "node_modules/@sparticuz/chromium/bin");
const target = join(import.meta.dirname, "node_modules/.browser");

mkdirSync(target, { recursive: true });
for (const name of ["al2023", "fonts", "swiftshader"]) {
  execFileSync("tar", ["-xf", "-", "-C", target], { input: brotliDecompressSync(readFileSync(join(packed, `${name}.tar.br`))) });
}
writeFileSync(join(target, "chromium"), brotliDecompressSync(readFileSync(join(packed, "chromium.br"))));
chmodSync(join(target, "chromium"), 0o755);
