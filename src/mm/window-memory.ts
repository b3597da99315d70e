/** The memory behind CPU windows, whichever MMU watches over it. */
import { KernelError } from "../base/index.ts";

const WASM_PAGE = 65_536;

/**
 * Zeroed, page-aligned shared memory, committed lazily and kept by the engine as long as an array over it lives. At least
 * `byteLength` bytes, at most 4 GiB.
 * @throws KernelError ENOMEM
 */
export function createWindowMemory(byteLength: number): SharedArrayBuffer {
  const pages = Math.ceil(byteLength / WASM_PAGE);
  try {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    return memory.buffer as unknown as SharedArrayBuffer;
  } catch (cause) {
    throw new KernelError(
      "ENOMEM",
      "mmap",
      `the JavaScript engine has no room for a window of ${byteLength} bytes: unmap something, or map less at once`,
      { cause },
    );
  }
}
