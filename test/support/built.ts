/** The built command, made fresh when a test asks for it, and ways to run it. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmdirSync, statSync } from "node:fs";
import path from "node:path";

/** The checkout. */
export const ROOT = path.resolve(import.meta.dirname, "../..");
/** The command's file in dist. */
export const COMMAND = path.join(ROOT, "dist/cli/main.js");

function newestSource(): number {
  const files = readdirSync(path.join(ROOT, "src"), { recursive: true, withFileTypes: true });
  const times = files
    .filter((entry) => entry.isFile() && !entry.name.endsWith(".test.ts"))
    .map((entry) => statSync(path.join(entry.parentPath, entry.name)).mtimeMs);
  return Math.max(...times);
}

const isFresh = () => existsSync(COMMAND) && statSync(COMMAND).mtimeMs >= newestSource();
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Builds dist unless it is newer than the source; test files that run side by side build it once. */
export async function ensureBuilt(): Promise<void> {
  if (process.env.PAGEMIRROR_DIST_IS_FRESH === "1" || isFresh()) {
    return;
  }
  const lock = path.join(ROOT, "node_modules/.cache/pagemirror-build.lock");
  mkdirSync(path.dirname(lock), { recursive: true });
  for (;;) {
    try {
      mkdirSync(lock);
      break;
    } catch {
      // Another test file builds. A lock that a killed run left behind is older than any build.
      await pause(200);
      if (existsSync(lock) && Date.now() - statSync(lock).mtimeMs > 120_000) {
        rmdirSync(lock);
      }
    }
  }
  try {
    if (!isFresh()) {
      const { status, stdout, stderr } = spawnSync(process.execPath, ["scripts/build.mjs"], {
        cwd: ROOT,
        encoding: "utf8",
      });
      if (status !== 0) {
        throw new Error(`npm run build failed:\n${stdout}${stderr}`);
      }
    }
  } finally {
    rmdirSync(lock);
  }
}

/** How a program ended. */
export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How to run a program. */
export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  readonly uid?: number;
  /** Called with the running program. */
  readonly started?: (child: ChildProcess) => void;
}

/** Runs a program to its end. */
export function runProgram(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const { cwd = ROOT, env = {}, uid, started } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      ...(uid === undefined ? {} : { uid }),
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (bytes) => {
      stdout += bytes;
    });
    child.stderr.on("data", (bytes) => {
      stderr += bytes;
    });
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status, signal, stdout, stderr }));
    started?.(child);
  });
}

/** Runs `pagemirror`. */
export function pagemirror(args: readonly string[], options?: RunOptions): Promise<Ended> {
  return runProgram(process.execPath, [COMMAND, ...args], options);
}
