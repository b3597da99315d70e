/** What kernels may do where, for all that the mappings say. */
import { PAGE_SIZE } from "../../../base/index.ts";
import { type AddressSpace, type Vma, VmFlags } from "../../../mm/index.ts";
import { addrOfPage, pageOfAddr, SUB_PAGES } from "./page-entry.ts";

/** Device pages of the aperture. */
const APERTURE_PAGES = 2 ** 20;

/** Device pages of the aperture up to the end of the last mapping. Locks: mmapLock, read. */
export function mappedLength(mm: AddressSpace): number {
  let last = 0;
  for (const vma of mm.vmas.values(addrOfPage(0))) {
    if (pageOfAddr(vma.start) >= APERTURE_PAGES) {
      break;
    }
    last = Math.min(APERTURE_PAGES, pageOfAddr(vma.end - 1) + 1);
  }
  return last;
}

/** All that {@link accessOfMappings} looks at. */
export class SeenMappings {
  #seen: readonly number[] = [];

  /** Whether nothing is other than when it was called last. Locks: mmapLock, read. */
  areSame(mm: AddressSpace): boolean {
    const mapped: number[] = [];
    for (const { start, end, pgoff, flags, object } of mm.vmas.values(addrOfPage(0))) {
      mapped.push(start, end, pgoff, flags, object.pages);
    }
    const seen = this.#seen;
    this.#seen = mapped;
    return mapped.length === seen.length && mapped.every((word, i) => word === seen[i]);
  }
}

/**
 * A byte for each of the first `pages` device pages of the aperture: in its low nibble a bit for each CPU page that may be
 * read, in its high nibble one for each that may be written.
 *
 * Locks: mmapLock, read.
 */
export function accessOfMappings(mm: AddressSpace, pages: number): Uint8Array<ArrayBuffer> {
  const access = new Uint8Array(pages);
  for (const vma of mm.vmas.values(addrOfPage(0))) {
    const bits = accessBits(vma);
    const from = Math.floor((vma.start - addrOfPage(0)) / PAGE_SIZE);
    // What lies past the object's end is no memory.
    const to = Math.min(access.length * SUB_PAGES, from + Math.min(vma.pages, vma.object.pages - vma.pgoff));
    for (let sub = from; sub < to; ) {
      if (sub % SUB_PAGES === 0 && to - sub >= SUB_PAGES) {
        const whole = Math.floor((to - sub) / SUB_PAGES);
        access.fill(bits * 15, sub / SUB_PAGES, sub / SUB_PAGES + whole);
        sub += whole * SUB_PAGES;
      } else {
        access[Math.floor(sub / SUB_PAGES)] |= bits << (sub % SUB_PAGES);
        sub++;
      }
    }
  }
  return access;
}

const NO_MEMORY = VmFlags.Io | VmFlags.PfnMap | VmFlags.MixedMap;

/** What a kernel may do with a mapping's pages, for the first of four. */
function accessBits({ flags }: Vma): number {
  if (!(flags & VmFlags.Read) || flags & NO_MEMORY) {
    return 0;
  }
  return flags & VmFlags.Write ? 0x11 : 0x01;
}
