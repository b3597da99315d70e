/** Threads of this package. */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { Worker, type WorkerOptions } from "node:worker_threads";

/**
 * A worker of the module beside `here` (the caller's `import.meta.url`) that is called `name`: as built, or from source where a
 * loader of TypeScript is installed.
 */
export function startThread(here: string, name: string, options: WorkerOptions): Worker {
  // Arguments of the process that are about its program, as --input-type, are not about this one.
  const own = { ...options, execArgv: [] };
  if (!here.endsWith(".ts")) {
    return new Worker(new URL(`./${name}.js`, here), own);
  }
  const url = JSON.stringify(new URL(`./${name}.ts`, here).href);
  // Found from here, not from the current folder; and the half that is for modules.
  const loader = pathToFileURL(
    createRequire(here)
      .resolve("tsx/esm/api")
      .replace(/\.cjs$/, ".mjs"),
  ).href;
  const source = `import(${JSON.stringify(loader)}).then((tsx) => { tsx.register(); return import(${url}); });`;
  return new Worker(source, { ...own, eval: true });
}
