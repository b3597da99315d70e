/** Unpacks a compressed archive into a folder once, whoever else is doing the same at that moment. */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";
import tar from "tar-stream";
import { KernelError } from "../../base/index.ts";

/** What to unpack, and where. */
export interface UnpackOptions {
  /** A tar file compressed with brotli. */
  readonly archive: string;
  /** The folder that holds the unpacked folders, made when absent. */
  readonly cache: string;
  /** The first part of the unpacked folder's name; the archive's content hash follows it. */
  readonly name: string;
  /** The files that are kept; a name missing in the archive is an error. Others are skipped. */
  readonly files: readonly string[];
}

const MANIFEST = "complete.json";
/** A temporary folder older than this belongs to a process that died. */
const STALE_MS = 60 * 60 * 1000;

/**
 * Returns the folder that holds the archive's files, unpacking them first when they are absent or damaged.
 *
 * The folder is filled under another name and renamed, so that no process ever sees a part of it; its name carries the
 * archive's hash, so that another version of the archive gets another folder.
 *
 * Errors: EACCES, ENOSPC or EIO when the cache cannot be written, EINVAL when the archive is damaged or lacks a file.
 */
export async function unpackOnce(options: UnpackOptions): Promise<string> {
  const { archive, cache, name, files } = options;
  const hash = createHash("sha256")
    .update(await readArchive(archive))
    .digest("hex")
    .slice(0, 16);
  const folder = join(cache, `${name}-${hash}`);
  if (await isComplete(folder, files)) {
    return folder;
  }
  const fresh = join(cache, `.${name}-${hash}.${process.pid}.${randomUUID()}`);
  try {
    await mkdir(fresh, { recursive: true });
    await extract(archive, fresh, files);
    await install(fresh, folder, files);
  } catch (error) {
    throw cacheError(error, archive, cache);
  } finally {
    await rm(fresh, { recursive: true, force: true }).catch(() => undefined);
  }
  await removeStale(cache, `.${name}-`);
  return folder;
}

async function readArchive(archive: string): Promise<Buffer> {
  try {
    return await readFile(archive);
  } catch (error) {
    throw new KernelError(
      "ENOENT",
      "adapter",
      `${archive} cannot be read (${codeOf(error)}): install the package again with "npm ci"`,
      { cause: error },
    );
  }
}

/** Every file is there with the size that it had when it was unpacked. */
async function isComplete(folder: string, files: readonly string[]): Promise<boolean> {
  try {
    const sizes: unknown = JSON.parse(await readFile(join(folder, MANIFEST), "utf8"));
    if (typeof sizes !== "object" || sizes === null) {
      return false;
    }
    const expected = new Map<string, unknown>(Object.entries(sizes));
    for (const file of files) {
      if ((await stat(join(folder, file))).size !== expected.get(file)) {
        return false;
      }
    }
    return true;
  } catch {
    return false;
  }
}

async function extract(archive: string, folder: string, files: readonly string[]): Promise<void> {
  const wanted = new Set(files);
  const sizes: Record<string, number> = {};
  const unpacker = tar.extract();
  const feed = pipeline(createReadStream(archive), createBrotliDecompress(), unpacker);
  feed.catch(() => undefined);
  for await (const entry of unpacker) {
    const file = basename(entry.header.name);
    if (wanted.has(file) && (entry.header.type === "file" || entry.header.type === "contiguous-file")) {
      const path = join(folder, file);
      await pipeline(entry as unknown as Readable, createWriteStream(path, { mode: 0o755 }));
      sizes[file] = (await stat(path)).size;
    } else {
      entry.resume();
    }
  }
  await feed;
  const missing = files.filter((file) => sizes[file] === undefined);
  if (missing.length > 0) {
    throw new KernelError(
      "EINVAL",
      "adapter",
      `${archive} holds no ${missing.join(", ")}: install the package's version that package.json asks for`,
    );
  }
  await writeFile(join(folder, MANIFEST), JSON.stringify(sizes));
}

/** Puts the fresh folder in place; a complete folder that another process put there first is as good. */
async function install(fresh: string, folder: string, files: readonly string[]): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await rename(fresh, folder);
      return;
    } catch (error) {
      if (await isComplete(folder, files)) {
        return;
      }
      if (tries === 5) {
        throw error;
      }
    }
    // A damaged folder is renamed away before it is removed: processes that loaded its files keep them.
    const broken = `${fresh}.broken${tries}`;
    await rename(folder, broken).catch(() => undefined);
    await rm(broken, { recursive: true, force: true });
  }
}

async function removeStale(cache: string, prefix: string): Promise<void> {
  const names = await readdir(cache).catch(() => []);
  for (const name of names.filter((entry) => entry.startsWith(prefix))) {
    const path = join(cache, name);
    const age = await stat(path).then(
      (info) => Date.now() - info.mtimeMs,
      () => 0,
    );
    if (age > STALE_MS) {
      await rm(path, { recursive: true, force: true }).catch(() => undefined);
    }
  }
}

function cacheError(error: unknown, archive: string, cache: string): KernelError {
  if (error instanceof KernelError) {
    return error;
  }
  const code = codeOf(error);
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new KernelError(
      "ENOSPC",
      "adapter",
      `no space in ${cache}: free 40 MB there or set PAGEMIRROR_CACHE to another folder`,
      { cause: error },
    );
  }
  if (["EACCES", "EPERM", "EROFS", "ENOTDIR", "EEXIST", "ENOENT", "ELOOP"].includes(code)) {
    return new KernelError(
      "EACCES",
      "adapter",
      `the cache folder ${cache} cannot be written (${code}): set PAGEMIRROR_CACHE to a folder that can`,
      { cause: error },
    );
  }
  if (code.startsWith("ERR_") || code.startsWith("Z_") || code === "unknown error") {
    return new KernelError("EINVAL", "adapter", `${archive} is damaged: install the package again with "npm ci"`, {
      cause: error,
    });
  }
  return new KernelError(
    "EIO",
    "adapter",
    `${cache} cannot be written (${code}): set PAGEMIRROR_CACHE to another folder`,
    { cause: error },
  );
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "unknown error";
}
