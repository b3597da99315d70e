/** What the process has mapped at an address range. @linux Documentation/filesystems/proc.rst /proc/PID/maps */
import { readSync } from "node:fs";
import { CLOEXEC } from "./abi.ts";
import type { Libc } from "./libc.ts";

/** Bytes from an address on: those that may be read and written, and all that are mapped, without a hole. */
export interface MappedExtent {
  readonly accessible: number;
  readonly mapped: number;
  /** Files that are mapped in the first bytes of it. */
  readonly files: readonly string[];
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) (...)\S+ \S+ \S+ \S+ *(.*)/;

/** A descriptor for {@link mappedExtent}, negative when there is none: opened before it is needed, as all may be in use then. */
export function openMaps(libc: Libc): number {
  return libc.open("/proc/self/maps", CLOEXEC);
}

function readMaps(maps: number): string {
  const chunk = Buffer.allocUnsafe(65_536);
  let text = "";
  for (let at = 0, n = -1; n !== 0; at += n) {
    n = readSync(maps, chunk, 0, chunk.length, at);
    text += chunk.toString("latin1", 0, n);
  }
  return text;
}

/** Reads the maps synchronously: by the thread itself, which waits for no other one. */
export function mappedExtent(maps: number, address: number, bytes = 0): MappedExtent {
  let accessible = 0;
  let end = address;
  const files: string[] = [];
  for (const line of readMaps(maps).split("\n")) {
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
