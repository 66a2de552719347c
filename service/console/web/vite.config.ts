import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vitest/config";

const COMPILE_AT_ONCE = "//# allFunctionsCalledOnLoad\n";

const ASKS =
  /node_modules\/(openapi-fetch|@tanstack\/(query-core|react-query\/.*ueryOptions))|\/src\/(api|app\/(caller|queries|told|theme|purpose-store)|ui\/numbers)/;
const DRAWS =
  /node_modules\/(react|react-dom|scheduler|wouter|@tanstack\/react-query)\/|\/src\/(ui\/(?!virtual-list)|app\/(session|purpose|keys|focus))/;

/** Let V8 compile every function while a script loads, beside the page's thread, not on it when it is first called. */
function compiledAtOnce(): Plugin {
  return {
    name: "compiled-at-once",
    enforce: "post",
    // The mark counts at the very beginning alone, before what Vite puts there.
    generateBundle: {
      order: "post",
      handler(_options, bundle) {
        for (const made of Object.values(bundle)) {
          if (made.type === "chunk") made.code = COMPILE_AT_ONCE + made.code;
        }
      },
    },
  };
}

// Paths in the build are relative: the service writes into the page's <base> where it is mounted.
export default defineConfig({
  base: "./",
  plugins: [react(), compiledAtOnce()],
  resolve: { alias: { "@": new URL("./src", import.meta.url).pathname } },
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    target: "es2022",
    manifest: "manifest.json", // by which the service names a page's files in index.html
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    sourcemap: false,
    reportCompressedSize: true,
    rolldownOptions: {
      output: {
        // Two files that every page has: of what asks, and of what draws. Many small ones cost more than they save.
        codeSplitting: {
          groups: [
            { name: "asks", test: ASKS, priority: 2 },
            { name: "draws", test: DRAWS, priority: 1 },
          ],
        },
      },
    },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8000", "/auth": "http://127.0.0.1:8000" } },
  test: { include: ["src/**/*.test.ts", "src/**/*.test.tsx"], environment: "node" },
});
