/**
 * What is done to the page when it is built: the service worker is told what the first screen is
 * made of, and everything that gets smaller is compressed, so that nobody has to on a request.
 */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import zlib from "node:zlib";
import type { Plugin, Rolldown } from "vite";

const WORKER = "sw.js";
/** What a gateway sends compressed. Its page it changes, and compresses that itself. */
const PACKED = new Set([".css", ".js", ".json", ".svg", ".webmanifest"]);
/** Bytes; a smaller file fits into one packet anyway. */
const WORTH = 1024;

const CODINGS: Readonly<Record<string, (content: Buffer) => Buffer>> = {
  ".br": (content) =>
    zlib.brotliCompressSync(content, {
      params: {
        [zlib.constants.BROTLI_PARAM_QUALITY]: zlib.constants.BROTLI_MAX_QUALITY,
        [zlib.constants.BROTLI_PARAM_SIZE_HINT]: content.length,
      },
    }),
  ".gz": (content) => zlib.gzipSync(content, { level: 9 }),
};

/** The plugin that does it. */
export function shell(): Plugin {
  return {
    name: "shell",
    apply: "build",
    writeBundle({ dir }, bundle) {
      if (dir === undefined) return;
      const file = join(dir, WORKER);
      const names = Object.keys(bundle).sort();
      const version = createHash("sha256");
      for (const name of names) version.update(`${name}\n`);
      version.update(readFileSync(join(dir, "index.html"))).update(readFileSync(file));
      writeFileSync(
        file,
        replaced(readFileSync(file, "utf-8"), {
          VERSION: version.digest("hex").slice(0, 16),
          SHELL: firstScreen(bundle).map((name) => `/${name}`),
        }),
      );
      for (const each of readdirSync(dir, { recursive: true, encoding: "utf-8" })) {
        if (PACKED.has(extname(each))) pack(join(dir, each));
      }
    },
  };
}

/** The scripts and styles that the page asks for by itself, before any screen is opened. */
function firstScreen(bundle: Rolldown.OutputBundle): string[] {
  const found = new Set<string>();
  const add = (name: string): void => {
    const one = bundle[name];
    if (found.has(name) || one?.type !== "chunk") return;
    found.add(name);
    for (const style of one.viteMetadata?.importedCss ?? []) found.add(style);
    one.imports.forEach(add);
  };
  for (const one of Object.values(bundle)) {
    // Its own entry; the page of the API, docs.html, has another.
    const isPage = one.type === "chunk" && one.facadeModuleId?.endsWith("/index.html");
    if (isPage) add(one.fileName);
  }
  return [...found].sort();
}

/** `text` with other values in its lines `const NAME = ...;`. */
function replaced(text: string, values: Readonly<Record<string, unknown>>): string {
  for (const [name, value] of Object.entries(values)) {
    const line = new RegExp(`^const ${name} = .*;$`, "m");
    if (!line.test(text)) throw new Error(`${WORKER} has no line "const ${name} = ...;"`);
    text = text.replace(line, () => `const ${name} = ${JSON.stringify(value)};`);
  }
  return text;
}

function pack(file: string): void {
  const content = readFileSync(file);
  if (content.length < WORTH) return;
  const codings = { ...CODINGS };
  // Node has it since 22.15.
  if (typeof zlib.zstdCompressSync === "function") codings[".zst"] = zstd;
  for (const [ending, compress] of Object.entries(codings)) {
    const packed = compress(content);
    if (packed.length < content.length) writeFileSync(file + ending, packed);
  }
}

function zstd(content: Buffer): Buffer {
  return zlib.zstdCompressSync(content, {
    params: { [zlib.constants.ZSTD_c_compressionLevel]: 19 },
  });
}
