/// <reference types="vitest/config" />
import preact from "@preact/preset-vite";
import type { Plugin } from "vite";
import { defineConfig } from "vite";
import { shell } from "./shell.ts";

/** What a gateway that serves the page adds to it, so that `npm run dev` behaves alike. */
const asServedByGateway: Plugin = {
  name: "as-served-by-gateway",
  apply: "serve",
  transformIndexHtml: () => [
    { tag: "meta", attrs: { name: "llm-gateway", content: "development" }, injectTo: "head" },
  ],
};

export default defineConfig({
  plugins: [preact(), asServedByGateway, shell()],
  build: {
    target: "es2022",
    outDir: "dist",
    // A strict Content-Security-Policy has no `data:` for scripts and styles.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: ["index.html", "docs.html"] },
  },
  // `npm run dev` shows the page with a gateway that runs on this machine.
  server: {
    proxy: {
      "^/(v1|admin|clients|docs|health|key|models|openapi.json|ping|schemas|status)":
        process.env["GATEWAY"] ?? "http://127.0.0.1:8080",
    },
  },
  test: {
    environment: "happy-dom",
    include: ["src/**/*.test.{ts,tsx}"],
    testTimeout: 60_000, // of a busy machine: what takes long is measured elsewhere
  },
});
