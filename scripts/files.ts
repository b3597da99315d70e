/** Lists source files for the project's checks. */
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";

/** The `.ts` files under a folder, sorted, as paths relative to it with `/`. Empty when there is no such folder. */
export function sourceFiles(folder: string): string[] {
  if (!existsSync(folder)) {
    return [];
  }
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)).split(path.sep).join("/"))
    .sort();
}

/** Prints what a check found and ends the process: 1 when there is anything. */
export function reportAndExit(check: string, problems: readonly string[], good: string): never {
  for (const problem of problems) {
    process.stderr.write(`${problem}\n`);
  }
  process.stdout.write(problems.length === 0 ? `${check}: ${good}\n` : `${check}: ${problems.length} problems\n`);
  process.exit(problems.length === 0 ? 0 : 1);
}
