/** Threads of this package. */
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
  const source = `import("tsx/esm/api").then((tsx) => { tsx.register(); return import(${url}); });`;
  return new Worker(source, { ...own, eval: true });
}
