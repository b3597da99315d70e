/** Where this library keeps files that it can make again at any time. */
import { lstat, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { KernelError } from "../../base/index.ts";

/**
 * The cache folder: `PAGEMIRROR_CACHE` when that is set, else the user's own cache folder for this operating system, else
 * what {@link spareCacheFolder} would make.
 */
export async function cacheFolder(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const chosen = env.PAGEMIRROR_CACHE;
  if (chosen !== undefined && chosen !== "") {
    return isAbsolute(chosen) ? chosen : resolve(chosen);
  }
  try {
    // It looks for the home folder as it is loaded; a user of a container often has none.
    const { default: envPaths } = await import("env-paths");
    return envPaths("pagemirror", { suffix: "" }).cache;
  } catch {
    return spareFolder(tmpdir());
  }
}

const user = () => process.getuid?.() ?? 0;
const spareFolder = (temporary: string) => join(temporary, `pagemirror-${user()}`);

/**
 * A folder of this user's among the temporary files, made when absent: for users whose cache folder cannot be written.
 * Others may write beside it, and what is loaded from it runs as this user, so it must be nobody else's.
 * @throws KernelError EACCES it cannot be made, or others may write there
 */
export async function spareCacheFolder(temporary = tmpdir()): Promise<string> {
  const folder = spareFolder(temporary);
  await mkdir(folder, { mode: 0o700 }).catch(() => undefined);
  const stats = await lstat(folder).catch(() => undefined);
  if (stats === undefined || !stats.isDirectory() || stats.uid !== user() || (stats.mode & 0o022) !== 0) {
    const why = `${folder} cannot be made, or is not this user's alone: set PAGEMIRROR_CACHE to a folder that can be written`;
    throw new KernelError("EACCES", "adapter", why);
  }
  return folder;
}
