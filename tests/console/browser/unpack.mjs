// Unpack the browser of the tests, with the libraries and the fonts that a machine may lack, into node_modules.
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";

const modules = join(import.meta.dirname, "node_modules");
const packed = join(modules, "@sparticuz/chromium/bin");
const target = join(modules, ".browser");

/** Chromium ends when it finds no font. The packed settings name folders of another machine, so these replace them. */
const FONTS = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">fonts</dir>
  <dir prefix="relative">../source-code-pro/TTF</dir>
  <cachedir>${join(target, "font-cache")}</cachedir>
  <alias binding="same"><family>sans-serif</family><prefer><family>Open Sans</family></prefer></alias>
  <alias binding="same"><family>system-ui</family><prefer><family>Open Sans</family></prefer></alias>
  <alias binding="same"><family>monospace</family><prefer><family>Source Code Pro</family></prefer></alias>
</fontconfig>
`;

mkdirSync(target, { recursive: true });
for (const name of ["al2023", "fonts", "swiftshader"]) {
  execFileSync("tar", ["-xf", "-", "-C", target], { input: brotliDecompressSync(readFileSync(join(packed, `${name}.tar.br`))) });
}
writeFileSync(join(target, "fonts.conf"), FONTS);
writeFileSync(join(target, "chromium"), brotliDecompressSync(readFileSync(join(packed, "chromium.br"))));
chmodSync(join(target, "chromium"), 0o755);
