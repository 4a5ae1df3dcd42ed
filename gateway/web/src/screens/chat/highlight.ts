/** Colours for code. The highlighter and each language are fetched when they are first wanted. */

import type { HLJSApi, LanguageFn } from "highlight.js";

type Module = { readonly default: LanguageFn };

const LANGUAGES: Readonly<Record<string, () => Promise<Module>>> = {
  bash: () => import("highlight.js/lib/languages/bash"),
  c: () => import("highlight.js/lib/languages/c"),
  cmake: () => import("highlight.js/lib/languages/cmake"),
  cpp: () => import("highlight.js/lib/languages/cpp"),
  csharp: () => import("highlight.js/lib/languages/csharp"),
  css: () => import("highlight.js/lib/languages/css"),
  dart: () => import("highlight.js/lib/languages/dart"),
  diff: () => import("highlight.js/lib/languages/diff"),
  dockerfile: () => import("highlight.js/lib/languages/dockerfile"),
  elixir: () => import("highlight.js/lib/languages/elixir"),
  go: () => import("highlight.js/lib/languages/go"),
  graphql: () => import("highlight.js/lib/languages/graphql"),
  haskell: () => import("highlight.js/lib/languages/haskell"),
  ini: () => import("highlight.js/lib/languages/ini"),
  java: () => import("highlight.js/lib/languages/java"),
  javascript: () => import("highlight.js/lib/languages/javascript"),
  json: () => import("highlight.js/lib/languages/json"),
  julia: () => import("highlight.js/lib/languages/julia"),
  kotlin: () => import("highlight.js/lib/languages/kotlin"),
  latex: () => import("highlight.js/lib/languages/latex"),
  lua: () => import("highlight.js/lib/languages/lua"),
  makefile: () => import("highlight.js/lib/languages/makefile"),
  markdown: () => import("highlight.js/lib/languages/markdown"),
  nix: () => import("highlight.js/lib/languages/nix"),
  perl: () => import("highlight.js/lib/languages/perl"),
  php: () => import("highlight.js/lib/languages/php"),
  powershell: () => import("highlight.js/lib/languages/powershell"),
  python: () => import("highlight.js/lib/languages/python"),
  r: () => import("highlight.js/lib/languages/r"),
  ruby: () => import("highlight.js/lib/languages/ruby"),
  rust: () => import("highlight.js/lib/languages/rust"),
  scala: () => import("highlight.js/lib/languages/scala"),
  sql: () => import("highlight.js/lib/languages/sql"),
  swift: () => import("highlight.js/lib/languages/swift"),
  typescript: () => import("highlight.js/lib/languages/typescript"),
  xml: () => import("highlight.js/lib/languages/xml"),
  yaml: () => import("highlight.js/lib/languages/yaml"),
};

const ALIASES: Readonly<Record<string, string>> = {
  "c#": "csharp",
  "c++": "cpp",
  cc: "cpp",
  console: "bash",
  cs: "csharp",
  docker: "dockerfile",
  ex: "elixir",
  golang: "go",
  h: "c",
  hpp: "cpp",
  hs: "haskell",
  html: "xml",
  jl: "julia",
  js: "javascript",
  json5: "json",
  jsonc: "json",
  jsx: "javascript",
  kt: "kotlin",
  make: "makefile",
  md: "markdown",
  patch: "diff",
  pl: "perl",
  ps1: "powershell",
  py: "python",
  python3: "python",
  rb: "ruby",
  rs: "rust",
  sh: "bash",
  shell: "bash",
  svg: "xml",
  tex: "latex",
  toml: "ini",
  ts: "typescript",
  tsx: "typescript",
  vue: "xml",
  yml: "yaml",
  zsh: "bash",
};

/** Characters of which colours are worked out at once, without a pause that could be felt. */
const LONGEST = 60_000;

/** The name of a language that can be coloured, or `null`. */
export function known(language: string): string | null {
  const name = language.toLowerCase();
  const found = ALIASES[name] ?? name;
  return Object.hasOwn(LANGUAGES, found) ? found : null;
}

let core: Promise<HLJSApi> | null = null;

/** HTML of code in its colours, made of `span class="hljs-..."` only; `null`: as it is. */
export async function coloured(code: string, language: string): Promise<string | null> {
  const name = known(language);
  const load = name === null ? undefined : LANGUAGES[name];
  if (name === null || load === undefined || code.length > LONGEST) return null;
  core ??= import("highlight.js/lib/core").then((module) => module.default);
  try {
    const hljs = await core;
    if (!hljs.getLanguage(name)) hljs.registerLanguage(name, (await load()).default);
    return hljs.highlight(code, { language: name, ignoreIllegals: true }).value;
  } catch {
    core = null; // fetched again next time: code without colours is no reason to say anything
    return null;
  }
}
