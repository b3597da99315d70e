/** Runs modules one after the other in this process, with a line on stdout before each: run-blocks.mjs FILE… */
import { pathToFileURL } from "node:url";

for (const file of process.argv.slice(2)) {
  process.stdout.write(`\u0000${file}\n`);
  await import(pathToFileURL(file).href);
}
