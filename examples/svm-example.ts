/** What the examples of svm mode share: their arguments, their data files, and the lines that they print. */
import { mkdtemp, open, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

/** `[SIZE] [DEVICE_MEMORY] [FILE]` of the command line. */
export interface ExampleArguments extends AsyncDisposable {
  /** Bytes of the data file to make. */
  readonly size: number;
  readonly deviceMemory: number;
  readonly file: string;
}

function bytesOf(text: string): number {
  const match = /^(\d+)([KMG]?)$/i.exec(text);
  if (match === null) {
    throw new Error(`"${text}" is not a size: write bytes, or a number with K, M or G, such as 64M`);
  }
  return Number(match[1]) * 1024 ** ["", "K", "M", "G"].indexOf(match[2]?.toUpperCase() ?? "");
}

/** Reads the command line. Without a FILE, one in a temporary folder is used, and removed at the end. */
export async function readArguments(size = "64M", deviceMemory = "8M"): Promise<ExampleArguments> {
  const [sizeText = size, memoryText = deviceMemory, file] = process.argv.slice(2);
  const [bytes, memoryBytes] = [bytesOf(sizeText), bytesOf(memoryText)];
  const folder = file === undefined ? await mkdtemp(path.join(tmpdir(), "pagemirror-example-")) : undefined;
  return {
    size: bytes,
    deviceMemory: memoryBytes,
    file: file ?? path.join(folder ?? "", "data.bin"),
    async [Symbol.asyncDispose]() {
      if (folder !== undefined) {
        await rm(folder, { recursive: true });
      }
    },
  };
}

/** Bytes that {@link makeFile} asks for at once. */
const CHUNK = 1024 * 1024;

/**
 * Makes a file of `bytes` bytes unless it is there. `fill` gets the bytes from `offset` on to fill in, 1 MiB at a time,
 * the last time what is left.
 */
export async function makeFile(
  file: string,
  bytes: number,
  fill: (chunk: Uint8Array<ArrayBuffer>, offset: number) => void,
): Promise<void> {
  const there = await stat(file).catch(() => undefined);
  if (there !== undefined) {
    return;
  }
  await using handle = await open(file, "wx");
  for (let offset = 0; offset < bytes; offset += CHUNK) {
    const chunk = new Uint8Array(Math.min(CHUNK, bytes - offset));
    fill(chunk, offset);
    await handle.write(chunk, 0, chunk.length, offset);
  }
}

/** A number that looks random and depends on `n` alone, from 0 to 2^32 - 1. */
export function mix(n: number): number {
  let h = n ^ 0x5bd1e995;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** `64.0 MiB`. */
export function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/** What a dispatch, or several, took. */
export interface Figures {
  readonly rounds: number;
  readonly bytesToDevice: number;
  readonly evictions: number;
}

/** Prints what the work took, and whether it is right, which decides the exit status. */
export function report(
  what: string,
  { dataBytes, deviceMemory, neededBytes, ms }: Record<"dataBytes" | "deviceMemory" | "neededBytes" | "ms", number>,
  { rounds, bytesToDevice, evictions }: Figures,
  right: boolean,
): void {
  const times = (dataBytes / deviceMemory).toFixed(1);
  console.log(what);
  console.log(`data ${mib(dataBytes)}, ${times} times the device memory of ${mib(deviceMemory)}`);
  console.log(
    `moved ${mib(bytesToDevice)}, ${(bytesToDevice / neededBytes).toFixed(2)} times the needed ${mib(neededBytes)}`,
  );
  console.log(`${rounds} rounds, ${evictions} pages evicted, ${ms.toFixed(0)} ms`);
  console.log(right ? "OK: equal to the CPU's result" : "FAILED: the CPU's result differs");
  process.exitCode = right ? 0 : 1;
}
