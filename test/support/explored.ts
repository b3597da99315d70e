/** Bundles code for the schedule explorer, as the build does, and loads it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { SourceMap, type SourceMapPayload } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { bundleExplored } from "../../scripts/explored.mjs";
import type { Instantiate, Locate } from "../../src/check/index.ts";
import { locateIn } from "../../src/cli/check.ts";
import { ROOT } from "./built.ts";

/** What {@link loadBundle} gives. */
export interface Bundle {
  readonly instantiate: Instantiate;
  readonly locate: Locate;
}

/** Compiles and loads the modules under an entry; with `record`, they tell what they read and write; `change` breaks them. */
export async function loadBundle(
  entry: string,
  options: { readonly record?: boolean; readonly change?: (code: string) => string } = {},
): Promise<Bundle> {
  const { change = (text) => text, ...how } = options;
  const { code: compiled, map } = await bundleExplored(entry, how);
  const code = change(compiled);
  const cache = path.join(ROOT, "node_modules/.cache");
  mkdirSync(cache, { recursive: true });
  const file = path.join(mkdtempSync(path.join(cache, "pagemirror-explored-")), "explored.mjs");
  writeFileSync(file, code);
  const { instantiate } = (await import(/* @vite-ignore */ pathToFileURL(file).href)) as { instantiate: Instantiate };
  rmSync(path.dirname(file), { recursive: true });
  const sources = new SourceMap(JSON.parse(map) as SourceMapPayload);
  return { instantiate, locate: (stack) => locateIn(sources, stack) };
}

/** Bundled code with a line replaced wherever it stands: the bundler gives names numbers where those of modules meet, and indents anew. */
export function breakLine(code: string, from: string, to: string): string {
  const escaped = from.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const line = new RegExp(escaped.replace(/[A-Za-z_]\w*/g, "$&\\d*").replace(/\s+/g, "\\s+"), "g");
  if (!line.test(code)) {
    throw new Error(`the bundle has no ${from}`);
  }
  return code.replace(line, () => to);
}
