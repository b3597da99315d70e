/** Links of the documents are written as files of the checkout see each other; here they become links between pages. */
import { existsSync } from "node:fs";
import path from "node:path";
import type { MarkdownEnv, MarkdownRenderer } from "vitepress";
import { pageOf, ROOT } from "./structure.ts";

const EXTERNAL = /^(?:[a-z]+:|\/\/)/;

/** The file of the checkout that a link names. @throws Error when there is none */
function targetOf(from: string, href: string): string {
  const target = path.posix.normalize(path.posix.join(path.posix.dirname(from), decodeURI(href)));
  if (!existsSync(path.join(ROOT, target))) {
    throw new Error(`${from} links to ${href}, and there is no such file`);
  }
  return target.replace(/\/$/, "");
}

/** A markdown-it plugin. Links to what is no page, such as the license, become plain text. */
export function linkRule(md: MarkdownRenderer): void {
  md.core.ruler.push("pagemirror_links", (state) => {
    const { realPath, path: file } = state.env as MarkdownEnv;
    const from = path
      .relative(ROOT, realPath ?? file)
      .split(path.sep)
      .join("/");
    for (const { children } of state.tokens) {
      let inPlainText = false;
      for (const token of children ?? []) {
        const href = token.attrGet("href");
        if (token.type === "link_open" && href !== null && !href.startsWith("#") && !EXTERNAL.test(href)) {
          const [file = "", hash] = href.split("#");
          const target = targetOf(from, file);
          const page = pageOf(target);
          if (page === undefined) {
            Object.assign(token, { tag: "span", attrs: [] });
            inPlainText = true;
          } else {
            token.attrSet("href", `/${page}.md${hash === undefined ? "" : `#${hash}`}`);
          }
        } else if (token.type === "link_close" && inPlainText) {
          token.tag = "span";
          inPlainText = false;
        }
      }
    }
  });
}
