/** The documentation site: README.md and its neighbours, docs/, and the reference that typedoc writes to site/api. */
import path from "node:path";
import { defineConfig } from "vitepress";
import { linkRule } from "./links.ts";
import { pictureRule } from "./pictures.ts";
import { ROOT, rewrites, SOURCES, siteNav, siteSidebar } from "./structure.ts";

export default defineConfig({
  title: "PageMirror",
  description: "Shared virtual memory for JavaScript and WebGPU, in the design of Linux HMM",
  srcDir: ROOT,
  srcExclude: SOURCES.excluded,
  outDir: path.join(ROOT, "site", "dist"),
  cacheDir: path.join(ROOT, "node_modules", ".cache", "vitepress"),
  rewrites,
  head: [["link", { rel: "icon", href: "data:," }]],
  markdown: {
    theme: { light: "github-light-high-contrast", dark: "github-dark-high-contrast" },
    config: (md) => {
      md.use(linkRule).use(pictureRule);
    },
  },
  // The index of the search is one file, fetched when somebody searches.
  vite: { publicDir: false, build: { chunkSizeWarningLimit: 4096 } },
  themeConfig: {
    search: { provider: "local" },
    outline: [2, 3],
    nav: siteNav(),
    sidebar: siteSidebar(),
    docFooter: { prev: "Before", next: "Next" },
  },
});
