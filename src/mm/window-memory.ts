/** The memory behind CPU windows, whichever MMU watches over it. */
import { KernelError } from "../base/index.ts";

const WASM_PAGE = 65_536;

/**
 * Zeroed, page-aligned memory, committed lazily and kept by the engine as long as an array over it lives. At least
 * `byteLength` bytes, at most 4 GiB. Memory that is not shared is a WebAssembly memory's too: nobody can transfer it away.
 * @throws KernelError ENOMEM
 */
export function createWindowMemory(byteLength: number, shared: false): ArrayBuffer;
export function createWindowMemory(byteLength: number, shared?: true): SharedArrayBuffer;
export function createWindowMemory(byteLength: number, shared: boolean): ArrayBufferLike;
export function createWindowMemory(byteLength: number, shared = true): ArrayBufferLike {
  const pages = Math.ceil(byteLength / WASM_PAGE);
  try {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
    return memory.buffer;
  } catch (cause) {
    throw new KernelError(
      "ENOMEM",
      "mmap",
      `the JavaScript engine has no room for a window of ${byteLength} bytes: unmap something, or map less at once`,
      { cause },
    );
  }
}
