/** Pictures are put into the page, so that they follow its colours and a reader of screens finds their text. */
import { readFileSync } from "node:fs";
import path from "node:path";
import type { MarkdownEnv, MarkdownRenderer } from "vitepress";

/** A markdown-it plugin: `![what it shows](pictures/x.svg)` becomes the drawing itself. */
export function pictureRule(md: MarkdownRenderer): void {
  const image = md.renderer.rules.image;
  md.renderer.rules.image = (tokens, index, options, env: MarkdownEnv, self) => {
    const token = tokens[index];
    const source = token?.attrGet("src") ?? "";
    if (token === undefined || !source.endsWith(".svg")) {
      return image?.(tokens, index, options, env, self) ?? "";
    }
    const file = path.resolve(path.dirname(env.realPath ?? env.path), source);
    // Its own style is for where it stands alone; the theme has the same for both colour schemes.
    const drawing = readFileSync(file, "utf8").replace(/<\?xml.*?\?>|<(style|title)>.*?<\/\1>|<!--.*?-->/gs, "");
    const label = md.utils.escapeHtml(token.content);
    return `<span class="picture" role="img" aria-label="${label}" v-pre>${drawing.replace(/\n\s*/g, "")}</span>`;
  };
}
