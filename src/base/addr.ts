/**
 * Addresses and ranges of a virtual address space.
 *
 * An address is a plain `number` below 2^48, branded so that bytes, pages and frames cannot be mixed up. This is the only
 * file that may do bit arithmetic on them: JavaScript's bit operators truncate to 32 bits, and a page number has 36. The lower
 * bits are what they keep, at a tenth of a remainder's price.
 */
import { invariant } from "./bug.ts";
import { KernelError } from "./errno.ts";

declare const unit: unique symbol;
type Branded<T, U extends string> = T & { readonly [unit]: U };

/** A byte address: a safe integer in [0, 2^48]. The limit itself may only be an exclusive range end. */
export type VirtAddr = Branded<number, "VirtAddr">;
/** A virtual page number: address / {@link PAGE_SIZE}. Up to 36 bits. */
export type Vpn = Branded<number, "Vpn">;
/** A page frame number of one `PhysicalMemory`. Up to 27 bits. */
export type Pfn = Branded<number, "Pfn">;

/** The binary logarithm of {@link PAGE_SIZE}. */
export const PAGE_SHIFT = 12;
/** Bytes in a CPU page. */
export const PAGE_SIZE = 4096;
/** Pages under one page-table block. */
export const PAGES_PER_BLOCK = 512;
/** Bytes under one page-table block: 2 MiB. */
export const BLOCK_SIZE = PAGE_SIZE * PAGES_PER_BLOCK;
/** One past the highest address. */
export const ADDRESS_LIMIT = (2 ** 48) as VirtAddr;

/** A half-open byte range `[start, end)`. */
export interface VirtRange {
  readonly start: VirtAddr;
  readonly end: VirtAddr;
}

/** Checks a number once, at the edge of the system. @throws KernelError EINVAL when it is no address. */
export function virtAddr(n: number, op = "virtAddr"): VirtAddr {
  if (!Number.isSafeInteger(n) || n < 0 || n > ADDRESS_LIMIT) {
    throw new KernelError("EINVAL", op, `${n} is not an address: use an integer from 0 to 2^48`);
  }
  return n as VirtAddr;
}

/** The page that holds the address. */
export function vpnOf(addr: number): Vpn {
  return Math.floor(addr / PAGE_SIZE) as Vpn;
}

/** The first byte of a page. */
export function addrOf(vpn: number): VirtAddr {
  return (vpn * PAGE_SIZE) as VirtAddr;
}

/** The first byte of the page that holds the address. */
export function pageAlignDown(addr: number): VirtAddr {
  return (addr - (addr % PAGE_SIZE)) as VirtAddr;
}

/** The address itself where a page begins, else the first byte of the next page. */
export function pageAlignUp(addr: number): VirtAddr {
  return pageAlignDown(addr + PAGE_SIZE - 1);
}

/** Whether a page begins at the address. */
export function isPageAligned(addr: number): boolean {
  return addr % PAGE_SIZE === 0;
}

/** `addr + length`, or undefined when that leaves the address space. */
export function addLength(addr: number, length: number): VirtAddr | undefined {
  const end = addr + length;
  return length >= 0 && end <= ADDRESS_LIMIT ? (end as VirtAddr) : undefined;
}

/** `addr + length` where the caller knows that it fits. */
export function mustAddLength(addr: number, length: number): VirtAddr {
  const end = addLength(addr, length);
  invariant(end !== undefined, "I-ADDR-1", () => `${formatAddr(addr)} + ${length} leaves the address space`);
  return end;
}

/** The page-table block (2 MiB) that holds a page. */
export function blockOfVpn(vpn: number): number {
  return Math.floor(vpn / PAGES_PER_BLOCK);
}

/** The place of a page within its page-table block, 0 to 511. */
export function indexInBlock(vpn: number): number {
  return vpn & (PAGES_PER_BLOCK - 1);
}

/** `0x7f12_3456_7000` */
export function formatAddr(addr: number): string {
  const hex = addr.toString(16);
  const groups: string[] = [];
  for (let i = hex.length; i > 0; i -= 4) {
    groups.unshift(hex.slice(Math.max(0, i - 4), i));
  }
  return `0x${groups.join("_")}`;
}

/** `[0x7f12_3456_7000, +0x2000)` */
export function formatRange(range: { readonly start: number; readonly end: number }): string {
  return `[${formatAddr(range.start)}, +0x${(range.end - range.start).toString(16)})`;
}
