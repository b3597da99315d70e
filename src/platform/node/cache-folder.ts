/** Where this library keeps files that it can make again at any time. */
import { isAbsolute, resolve } from "node:path";
import envPaths from "env-paths";

/** The cache folder: `PAGEMIRROR_CACHE` when that is set, else the user's own cache folder for this operating system. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  const chosen = env.PAGEMIRROR_CACHE;
  if (chosen !== undefined && chosen !== "") {
    return isAbsolute(chosen) ? chosen : resolve(chosen);
  }
  return envPaths("pagemirror", { suffix: "" }).cache;
}
