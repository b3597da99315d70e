/**
 * `npm run layers`: imports of src go the way of scripts/layers.ts only, never in a circle, and nothing below platform/ and
 * cli/ needs Node. A type import has a direction too, but makes no circle: it is gone at run time. Tests are composition
 * roots: they may import anything.
 */
import { existsSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { reportAndExit, sourceFiles } from "./files.ts";
import { LAYERS, type Layer, TYPE_PACKAGES } from "./layers.ts";
import { importsOf, stripSource } from "./source.ts";

const NODE_GLOBAL = /(?<![.\w$])(process|Buffer|__dirname|__filename|setImmediate|clearImmediate)\b(?!\s*\??:)/g;

const isTest = (file: string) => file.endsWith(".test.ts");
const isBuiltin = (specifier: string) => specifier.startsWith("node:") || builtinModules.includes(specifier);

/** `@scope/name` or `name` of a specifier, without a subpath. */
function packageOf(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

/** The layer of a file, given relative to src. */
export function layerOf(file: string): Layer | undefined {
  const name = file.replace(/\.ts$/, "");
  return LAYERS.filter((layer) => name === layer.name || name.startsWith(`${layer.name}/`)).sort(
    (a, b) => b.name.length - a.name.length,
  )[0];
}

function relativeProblem(src: string, file: string, layer: Layer, specifier: string): string | undefined {
  const target = path.posix.normalize(path.posix.join(path.posix.dirname(file), specifier));
  if (!specifier.endsWith(".ts")) {
    return `relative imports end in .ts: ${specifier}`;
  }
  if (target.startsWith("../")) {
    return `${specifier} leaves src`;
  }
  if (!existsSync(path.join(src, target))) {
    return `${specifier} does not exist`;
  }
  if (isTest(target)) {
    return `${specifier} is a test`;
  }
  const targetLayer = layerOf(target);
  if (targetLayer === undefined || targetLayer === layer || isTest(file)) {
    return undefined;
  }
  if (!layer.imports.includes(targetLayer.name)) {
    return `${layer.name} may not import ${targetLayer.name} (${specifier})`;
  }
  return undefined;
}

function packageProblem(file: string, layer: Layer, specifier: string): string | undefined {
  if (isTest(file)) {
    return undefined;
  }
  if (isBuiltin(specifier)) {
    return layer.node ? undefined : `${layer.name} runs in browsers too and may not import ${specifier}`;
  }
  const name = packageOf(specifier);
  return layer.packages.includes(name) || TYPE_PACKAGES.includes(name)
    ? undefined
    : `${layer.name} may not import the package ${name}`;
}

/** Import circles between files, each once, as `a -> b -> a`. */
function circles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const state = new Map<string, "open" | "done">();
  const trail: string[] = [];
  const visit = (file: string) => {
    if (state.get(file) === "open") {
      found.push(`import circle: ${[...trail.slice(trail.indexOf(file)), file].join(" -> ")}`);
      return;
    }
    if (state.get(file) === "done") {
      return;
    }
    state.set(file, "open");
    trail.push(file);
    for (const target of graph.get(file) ?? []) {
      visit(target);
    }
    trail.pop();
    state.set(file, "done");
  };
  for (const file of graph.keys()) {
    visit(file);
  }
  return found;
}

/** Everything that breaks the layers under a src folder, one line each. */
export function checkLayers(src: string): string[] {
  const problems: string[] = [];
  const graph = new Map<string, readonly string[]>();
  for (const file of sourceFiles(src)) {
    const layer = layerOf(file);
    if (layer === undefined) {
      problems.push(`src/${file}: belongs to no layer of scripts/layers.ts`);
      continue;
    }
    const text = readFileSync(path.join(src, file), "utf8");
    const targets: string[] = [];
    for (const { specifier, line, typeOnly } of importsOf(text)) {
      const relative = specifier.startsWith(".");
      if (relative && !typeOnly) {
        targets.push(path.posix.normalize(path.posix.join(path.posix.dirname(file), specifier)));
      }
      const problem = relative ? relativeProblem(src, file, layer, specifier) : packageProblem(file, layer, specifier);
      if (problem !== undefined) {
        problems.push(`src/${file}:${line}: ${problem}`);
      }
    }
    graph.set(file, targets);
    if (!layer.node && !isTest(file)) {
      for (const match of stripSource(text).code.matchAll(NODE_GLOBAL)) {
        const line = text.slice(0, match.index).split("\n").length;
        problems.push(`src/${file}:${line}: ${layer.name} runs in browsers too and may not use Node's ${match[1]}`);
      }
    }
  }
  return [...problems, ...circles(graph)];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const src = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), "src");
  reportAndExit("layers", checkLayers(src), `${sourceFiles(src).length} files keep to the layers`);
}
