/** Objects over URLs of a server that a test has started. */
import { expect } from "vitest";
import { type MemoryObject, type Pager, PhysicalMemory } from "../mm/index.ts";
import { type OpenUrlOptions, openUrlObject } from "../platform/http/open-url.ts";
import { SoftwareMmu } from "../platform/software/cpu-mmu.ts";
import type { Nginx } from "./nginx.ts";
import { pattern } from "./transfers.ts";

/** Where objects are opened. */
export const memory = new PhysicalMemory(new SoftwareMmu());
/** A KiB. */
export const K = 1024;
/** Of the CPU. */
export const PAGE = 4 * K;
/** Retries that take no time. */
export const QUICK = { retries: 3, backoffMs: 1 };
/** What the server has as `data.bin`. */
export const BYTES = pattern(8 * 2 ** 20 + 123);

/** An object that ends with its scope, and its pager. */
export class Opened implements AsyncDisposable {
  readonly object: MemoryObject;
  readonly pager: Pager;

  constructor(object: MemoryObject) {
    if (object.pager === undefined) {
      throw new Error("the object has no pager");
    }
    this.object = object;
    this.pager = object.pager;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length).fill(0xee);
    await this.pager.read(offset, bytes);
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.object.put();
  }
}

/** An object over a URL. @throws KernelError as openUrlObject */
export async function open(url: string, options: OpenUrlOptions = {}): Promise<Opened> {
  return new Opened(await openUrlObject(memory, url, { ...QUICK, ...options }));
}

/** The object's bytes, zeros past its end. */
function expected(offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(BYTES.subarray(offset, offset + length));
  return bytes;
}

/** As {@link expectBytes}, for each read. */
export function expectAll(reads: readonly Uint8Array[], offsets: readonly number[]): void {
  for (const [i, bytes] of reads.entries()) {
    expectBytes(bytes, offsets[i]);
  }
}

/** The bytes are those of the object from `offset` on. */
export function expectBytes(bytes: Uint8Array, offset: number): void {
  expect(Buffer.compare(bytes, expected(offset, bytes.length)), `bytes from ${offset}`).toBe(0);
}

/** The ranges that were asked for since the last call, in order of their first byte. */
export async function rangesOf(nginx: Nginx): Promise<string[]> {
  const log = (await nginx.takeLog()).filter(({ method }) => method === "GET");
  return log
    .map(({ range }) => range.replace("bytes=", ""))
    .sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
}
