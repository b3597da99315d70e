/** What the process has mapped at an address range. @linux Documentation/filesystems/proc.rst /proc/PID/maps */
import { readFileSync } from "node:fs";

/** Bytes from an address on: those that may be read and written, and all that are mapped, without a hole. */
export interface MappedExtent {
  readonly accessible: number;
  readonly mapped: number;
  /** Files that are mapped in the first bytes of it. */
  readonly files: readonly string[];
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) (...)\S+ \S+ \S+ \S+ *(.*)/;

/** Reads the maps synchronously: by the thread itself, which waits for no other one. */
export function mappedExtent(address: number, bytes = 0): MappedExtent {
  let accessible = 0;
  let end = address;
  const files: string[] = [];
  for (const line of readFileSync("/proc/self/maps", "latin1").split("\n")) {
    const found = LINE.exec(line);
    if (found === null) {
      continue;
    }
    const [from, to] = [Number.parseInt(found[1], 16), Number.parseInt(found[2], 16)];
    if (from <= end && to > end) {
      if (found[4] !== "" && from < address + bytes) {
        files.push(found[4]);
      }
      if (found[3].startsWith("rw") && accessible === end - address) {
        accessible = to - address;
      }
      end = to;
    }
  }
  return { accessible, mapped: end - address, files };
}
