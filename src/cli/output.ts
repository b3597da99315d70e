/**
 * Output files that appear whole or not at all: each is written to a file beside its target and renamed over it at the end.
 */
import { createHash, type Hash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { chown, realpath, rename, stat } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { KernelError } from "../base/index.ts";
import { fileError } from "./errors.ts";

// Plain descriptors and not FileHandles: a signal handler must be able to close them at once.
const open = promisify(fs.open);
const close = promisify(fs.close);
const write = promisify(fs.write);
const sync = promisify(fs.fsync);
const chmod = promisify(fs.fchmod);

/** What was written under one name. */
export interface OutputReport {
  readonly bytes: number;
  readonly sha256: string;
}

interface PendingFile {
  readonly name: string;
  readonly op: string;
  /** The file that the user named, links followed. */
  readonly target: string;
  /** What is written until the commit; the target itself for a device or a pipe, which cannot be replaced. */
  readonly written: string;
  fd: number | undefined;
  readonly hash: Hash;
  bytes: number;
}

const statOrUndefined = (file: string): Promise<fs.Stats | undefined> => stat(file).catch(() => undefined);

/** What tells two paths of one file: its inode, or the path that it will have. */
export async function fileIdentity(file: string): Promise<string> {
  const stats = await statOrUndefined(file);
  if (stats !== undefined) {
    return `${stats.dev}:${stats.ino}`;
  }
  const folder = await realpath(path.dirname(file)).catch(() => path.resolve(path.dirname(file)));
  return path.join(folder, path.basename(file));
}

async function resolveTarget(file: string): Promise<string> {
  return realpath(file).catch(() => path.resolve(file));
}

async function openPending(name: string, op: string, file: string): Promise<PendingFile> {
  const target = await resolveTarget(file);
  const stats = await statOrUndefined(target);
  if (stats?.isDirectory() === true || file.endsWith("/")) {
    throw new KernelError("EISDIR", op, `${file}: this is a folder: name a file in it`);
  }
  const common = { name, op, target, hash: createHash("sha256"), bytes: 0 };
  try {
    if (stats !== undefined && !stats.isFile()) {
      return { ...common, written: target, fd: await open(target, "w") };
    }
    if (stats !== undefined) {
      // Replacing a file asks for the folder's permission only; a user who write-protected the file meant the file.
      await close(await open(target, "r+"));
    }
    const written = path.join(
      path.dirname(target),
      `.${path.basename(target).slice(0, 100)}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`,
    );
    const fd = await open(written, "wx", stats === undefined ? 0o666 : stats.mode & 0o7777).catch((error) => {
      throw folderError(op, file, error);
    });
    if (stats !== undefined) {
      await chmod(fd, stats.mode & 0o7777);
      await chown(written, stats.uid, stats.gid).catch(() => undefined);
    }
    return { ...common, written, fd };
  } catch (error) {
    throw fileError(op, file, error);
  }
}

/** Why no file can be made beside the target: that is a matter of the folder. */
function folderError(op: string, file: string, error: unknown): unknown {
  const code = error instanceof Error && "code" in error ? error.code : "";
  return code === "EACCES" || code === "EPERM"
    ? new KernelError(
        "EACCES",
        op,
        `${file}: you may not write in its folder: change the folder's permissions, or choose another one`,
        { cause: error },
      )
    : error;
}

/**
 * The output files of one command. Made before the work starts, so that a path that cannot be written is known early.
 * Disposing without a commit removes everything; so does {@link discardSync}, which a signal handler may call.
 */
export class OutputFiles implements Disposable {
  readonly #files: PendingFile[];

  private constructor(files: PendingFile[]) {
    this.#files = files;
  }

  /**
   * Opens a file beside each target.
   * @throws KernelError EINVAL when two names write one file; EISDIR, ENOENT, EACCES, ENOSPC as the file system says.
   */
  static async create(targets: readonly { name: string; path: string; op?: string }[]): Promise<OutputFiles> {
    const outputs = new OutputFiles([]);
    const seen = new Map<string, string>();
    try {
      for (const { name, path: file, op = `out ${name}` } of targets) {
        const pending = await openPending(name, op, file);
        outputs.#files.push(pending);
        const identity = await fileIdentity(pending.target);
        const other = seen.get(identity);
        if (other !== undefined) {
          throw new KernelError("EINVAL", op, `${file} is written by ${other} too: give each its own file`);
        }
        seen.set(identity, name);
      }
    } catch (error) {
      outputs.discardSync();
      throw error;
    }
    return outputs;
  }

  /** Adds bytes to one output. @throws KernelError ENOSPC or EIO. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    const file = this.#files.find((candidate) => candidate.name === name);
    if (file?.fd === undefined) {
      throw new KernelError("EINVAL", `out ${name}`, "no such output was opened");
    }
    try {
      for (let at = 0; at < bytes.length; ) {
        at += (await write(file.fd, bytes, at, bytes.length - at)).bytesWritten;
      }
    } catch (error) {
      throw fileError(file.op, file.target, error);
    }
    file.hash.update(bytes);
    file.bytes += bytes.length;
  }

  /** Puts every file in its place; returns what was written. @throws KernelError when the file system refuses. */
  async commit(): Promise<Record<string, OutputReport>> {
    const report: Record<string, OutputReport> = {};
    for (const file of this.#files) {
      const { op, target, written, fd } = file;
      if (fd === undefined) {
        continue;
      }
      try {
        if (written !== target) {
          await sync(fd);
        }
        file.fd = undefined;
        await close(fd);
      } catch (error) {
        throw fileError(op, target, error);
      }
    }
    // Nothing is replaced before everything is on disk.
    for (let file = this.#files[0]; file !== undefined; file = this.#files[0]) {
      const { name, op, target, written, hash, bytes } = file;
      if (written !== target) {
        await rename(written, target).catch((error) => {
          throw fileError(op, target, error);
        });
      }
      report[name] = { bytes, sha256: hash.digest("hex") };
      this.#files.shift();
    }
    return report;
  }

  /** Removes what is not committed. Synchronous, for signal handlers; idempotent. */
  discardSync(): void {
    for (const { target, written, fd } of this.#files.splice(0)) {
      if (fd !== undefined) {
        fs.closeSync(fd);
      }
      if (written !== target) {
        fs.rmSync(written, { force: true });
      }
    }
  }

  [Symbol.dispose](): void {
    this.discardSync();
  }
}
