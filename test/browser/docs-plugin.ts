/** The programs of docs/browser.md as modules. */
import { readFileSync } from "node:fs";
import path from "node:path";
import type { Plugin } from "vite";

const BLOCK = /^```ts browser\n(.*?)^```$/gms;

export function docsPlugin(root: string): Plugin {
  const file = path.join(root, "docs", "browser.md");
  const markdown = readFileSync(file, "utf8");
  const blocks = [...markdown.matchAll(BLOCK)].map(([, text = ""], i) => ({ id: `/docs-browser-${i}.ts`, text, i }));
  return {
    name: "docs",
    enforce: "pre",
    resolveId: (id) => (id === "virtual:docs" || blocks.some((block) => block.id === id) ? `\0${id}` : undefined),
    load(id) {
      if (id === "\0virtual:docs") {
        const list = blocks.map(({ id: block, text, i }) => {
          const calls = /openWorker|openFile\(handle|openFile/.exec(text)?.[0] ?? "open";
          return `[${JSON.stringify(`program ${i + 1}, ${calls},`)}, () => import(${JSON.stringify(block)})]`;
        });
        return `export const blocks = [${list.join(",\n")}];`;
      }
      return blocks.find((block) => `\0${block.id}` === id)?.text;
    },
  };
}
