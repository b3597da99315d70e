/** The same results from the CPU, read from the file itself. */

const CHUNK = 8 * 2 ** 20;

/** Calls `visit` for the file's bytes in order; each piece begins with the last `overlap` bytes of the one before. */
async function read(
  file: File,
  overlap: number,
  signal: AbortSignal,
  visit: (bytes: Uint8Array, at: number) => void,
): Promise<void> {
  for (let at = 0; at < file.size; at += CHUNK) {
    signal.throwIfAborted();
    const from = Math.max(0, at - overlap);
    visit(new Uint8Array(await file.slice(from, Math.min(file.size, at + CHUNK)).arrayBuffer()), from);
  }
}

export async function countOnCpu(file: File, signal: AbortSignal): Promise<Uint32Array> {
  const counts = new Uint32Array(256);
  await read(file, 0, signal, (bytes) => {
    for (const byte of bytes) {
      counts[byte]++;
    }
  });
  return counts;
}

/** How often a text occurs; matches may overlap. */
export async function findOnCpu(file: File, needle: Uint8Array, signal: AbortSignal): Promise<number> {
  let matches = 0;
  await read(file, needle.length - 1, signal, (bytes) => {
    for (let at = bytes.indexOf(needle[0]); at >= 0; at = bytes.indexOf(needle[0], at + 1)) {
      matches += needle.every((byte, i) => bytes[at + i] === byte) ? 1 : 0;
    }
  });
  return matches;
}
