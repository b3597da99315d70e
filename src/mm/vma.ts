/** Virtual memory areas. @linux include/linux/mm_types.h struct vm_area_struct */
import { KernelError, PAGE_SIZE, quote, type VirtAddr } from "../base/index.ts";
import type { IntervalNode } from "../collections/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { MemoryObject } from "./memory-object.ts";

/** @linux include/linux/mm.h VM_READ and following */
export const VmFlags = {
  Read: 1,
  Write: 2,
  Shared: 8,
  /** Memory-mapped device registers: devices cannot mirror it. */
  Io: 16,
  /** Entries without pages: devices cannot mirror it. */
  PfnMap: 32,
  /** Pages and raw entries mixed: devices cannot mirror it. */
  MixedMap: 64,
} as const;

/** What the CPU and devices may do with a mapping. */
export type Prot = "none" | "r" | "rw";

/** @throws KernelError EINVAL */
export function protFlags(prot: Prot, op: string): number {
  switch (prot) {
    case "none":
      return 0;
    case "r":
      return VmFlags.Read;
    case "rw":
      return VmFlags.Read | VmFlags.Write;
    default:
      throw new KernelError("EINVAL", op, `unknown protection ${quote(prot)}: use "none", "r" or "rw"`);
  }
}

/** One mapped range with one set of permissions. Fields are protected by the mmap lock, held for writing. */
export class Vma {
  readonly mm: AddressSpace;
  start: VirtAddr;
  end: VirtAddr;
  flags: number;
  readonly object: MemoryObject;
  /** Page of the object at `start`. */
  pgoff: number;
  readonly name: string;
  /** Place in the object's reverse map. */
  rmap: IntervalNode<Vma> | undefined;

  constructor(fields: Pick<Vma, "mm" | "start" | "end" | "flags" | "object" | "pgoff" | "name">) {
    this.mm = fields.mm;
    this.start = fields.start;
    this.end = fields.end;
    this.flags = fields.flags;
    this.object = fields.object;
    this.pgoff = fields.pgoff;
    this.name = fields.name;
  }

  /** Page of the object that an address of this VMA maps. */
  objectPage(addr: number): number {
    return this.pgoff + Math.floor((addr - this.start) / PAGE_SIZE);
  }

  /** Address at which a page of the object is mapped here. */
  addrOfPage(page: number): number {
    return this.start + (page - this.pgoff) * PAGE_SIZE;
  }

  get pages(): number {
    return (this.end - this.start) / PAGE_SIZE;
  }

  get shared(): boolean {
    return (this.flags & VmFlags.Shared) !== 0;
  }
}

/** True when `left` and `right`, which touch, are one mapping that was cut. */
export function canMerge(left: Vma, right: Vma): boolean {
  return (
    left.end === right.start &&
    left.flags === right.flags &&
    left.object === right.object &&
    left.name === right.name &&
    left.pgoff + left.pages === right.pgoff
  );
}
