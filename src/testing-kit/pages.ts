/** Pictures of mappings and of page-table entries, one character a page, for expectations that can be read. */
import { PAGE_SIZE, vpnOf } from "../base/index.ts";
import { type AddressSpace, PTE_PRESENT, PTE_WRITE, PteKind, pteKind, VmFlags } from "../mm/index.ts";

const KINDS: ReadonlyMap<number, string> = new Map([
  [PteKind.DevicePrivate, "d"],
  [PteKind.DeviceExclusive, "x"],
  [PteKind.Migrating, "m"],
  [PteKind.Poisoned, "p"],
]);

/**
 * The page-table entries of `pages` pages from `start` on: `.` none, `r` read-only, `W` writable, `d` on a device, `m` migrating,
 * `x` a device has it for itself in system memory, `p` poisoned, `s` special.
 */
export function drawEntries(mm: AddressSpace, start: number, pages: number): string {
  return Array.from({ length: pages }, (_, i) => {
    const pte = mm.pageTable.get(vpnOf(start as Parameters<typeof vpnOf>[0]) + i);
    if (pte & PTE_PRESENT) {
      return pte & PTE_WRITE ? "W" : "r";
    }
    return pte === 0 ? "." : (KINDS.get(pteKind(pte)) ?? "s");
  }).join("");
}

/**
 * The mappings of `pages` pages from `start` on: `.` a hole, else a letter a mapping in order of address, upper case when
 * writable, lower case when readable, `-` when neither.
 */
export function drawMaps(mm: AddressSpace, start: number, pages: number): string {
  let letter = -1;
  let previous: unknown;
  return Array.from({ length: pages }, (_, i) => {
    const vma = mm.vmas.find(start + i * PAGE_SIZE);
    if (vma === undefined) {
      return ".";
    }
    letter += vma === previous ? 0 : 1;
    previous = vma;
    const name = String.fromCharCode("a".charCodeAt(0) + (letter % 26));
    return vma.flags & VmFlags.Read ? (vma.flags & VmFlags.Write ? name.toUpperCase() : name) : "-";
  }).join("");
}
