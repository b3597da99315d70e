/**
 * Synchronous page walks over a range. A walk acts on nothing: it records what is needed, its caller unwinds and acts.
 *
 * Two walks: findNeed (find-need.ts) compares the CPU's entries with what the range requests; {@link collect} turns them into
 * the range's pfns. Because nothing else runs during a walk, a collect sees one state of the page tables.
 */
import { blockOfVpn, type Errno, indexInBlock, PAGES_PER_BLOCK, vpnOf } from "../base/index.ts";
import { type AddressSpace, PTE_PRESENT, PTE_WRITE, PteKind, pteKind, ptePfn, type Vma, VmFlags } from "../mm/index.ts";
import { DEFAULT_PFN_FLAGS, DEFAULT_PFN_SHIFT, type HmmPfnFormat } from "./pfns.ts";

/** What a walk knows of a range. */
export interface WalkedRange extends HmmPfnFormat {
  readonly start: number;
  readonly end: number;
  readonly pfns: Uint32Array;
  readonly defaultFlags: number;
  readonly pfnFlagsMask: number;
  readonly devicePrivateOwner: object | undefined;
  /**
   * True for the present form of the fault: a page that the CPU could not have stops the walk only when it is requested,
   * and is an error entry otherwise. False for 5.4, where it stops every walk but for holes, which are `none`.
   */
  readonly marksErrors?: boolean;
}

/** The page at which a walk cannot go on. */
export interface WalkStop {
  readonly kind: "stop";
  readonly vpn: number;
  /** What the page's entry becomes. */
  readonly entry: number;
  readonly code: Errno;
  readonly why: string;
}

const UNUSABLE_VMA = VmFlags.Io | VmFlags.PfnMap | VmFlags.MixedMap;
/** Bits of a present PTE that are, by design, an entry of the default format. */
const DEFAULT_ENTRY_MASK = (~0 << DEFAULT_PFN_SHIFT) | PTE_PRESENT | PTE_WRITE;

/** A piece of the range in one VMA; or without pages (no VMA), for the reason `why`. */
interface Piece {
  readonly vma: Vma | undefined;
  readonly end: number;
  readonly why: string;
}

const NOTHING_MAPPED = "nothing is mapped there";

/** The piece at `addr`, or why the walk stops there. */
export function pieceAt(range: WalkedRange, mm: AddressSpace, addr: number): WalkStop | Piece {
  const vma = mm.vmas.findNext(addr);
  return range.marksErrors ? usablePiece(range, vma, addr) : piece54(range, vma, addr);
}

/** Whatever has no pages for a device is alike. */
function usablePiece(range: WalkedRange, vma: Vma | undefined, addr: number): Piece {
  if (vma === undefined || vma.start > addr) {
    return { vma: undefined, end: Math.min(vma?.start ?? range.end, range.end), why: NOTHING_MAPPED };
  }
  const end = Math.min(vma.end, range.end);
  if (vma.flags & UNUSABLE_VMA) {
    return { vma: undefined, end, why: `${vma.name} has no pages of memory that a device could mirror` };
  }
  if ((vma.flags & VmFlags.Read) === 0) {
    return { vma: undefined, end, why: `${vma.name} is not readable: mprotect it first` };
  }
  return { vma, end, why: "" };
}

function piece54(range: WalkedRange, vma: Vma | undefined, addr: number): WalkStop | Piece {
  if (vma === undefined) {
    return stopAt(range, vpnOf(addr), "EFAULT", "nothing is mapped there or above");
  }
  if (vma.start > addr) {
    return { vma: undefined, end: Math.min(vma.start, range.end), why: NOTHING_MAPPED };
  }
  if (vma.flags & UNUSABLE_VMA) {
    return stopAt(range, vpnOf(addr), "EFAULT", `${vma.name} has no pages of memory that a device could mirror`);
  }
  if ((vma.flags & VmFlags.Read) === 0) {
    return stopAt(range, vpnOf(addr), "EPERM", `${vma.name} is not readable: mprotect it first`);
  }
  return { vma, end: Math.min(vma.end, range.end), why: "" };
}

/** The walk ends at a page, with an error. */
export function stopAt(range: WalkedRange, vpn: number, code: Errno, why: string, entry = range.values.none): WalkStop {
  return { kind: "stop", vpn, code, why, entry };
}

/** What becomes of a page that no device can use; undefined for one that can be. */
export function unusableEntry(range: WalkedRange, pte: number): { entry: number; why: string } | undefined {
  switch (pteKind(pte)) {
    case PteKind.Poisoned:
      return { entry: range.values.error, why: "the only copy of the page was lost" };
    case PteKind.Special:
      return { entry: range.values.special, why: "the mapping has no page there" };
    default:
      return undefined;
  }
}

/** Whether the page is in the memory of the range's own device. */
export function isOwnDeviceEntry(range: WalkedRange, mm: AddressSpace, pte: number): boolean {
  return (
    pteKind(pte) === PteKind.DevicePrivate &&
    range.devicePrivateOwner !== undefined &&
    mm.memory.blockOf(ptePfn(pte))?.pagemap?.owner === range.devicePrivateOwner
  );
}

/**
 * Writes the entries of pages up to `limit`: what the CPU grants, whatever was requested. Holes and entries without a page
 * become `none`. Returns the stop before `limit`, if there is one; entries before it are written.
 */
export function collect(range: WalkedRange, mm: AddressSpace, limit: number): WalkStop | undefined {
  const origin = vpnOf(range.start);
  for (let addr = range.start; addr < limit; ) {
    const piece = pieceAt(range, mm, addr);
    if ("kind" in piece) {
      return piece;
    }
    const end = Math.min(piece.end, limit);
    if (piece.vma === undefined) {
      const entry = range.marksErrors ? range.values.error : range.values.none;
      range.pfns.fill(entry, vpnOf(addr) - origin, vpnOf(end) - origin);
    } else {
      const stop = collectPages(range, mm, vpnOf(addr), vpnOf(end), origin);
      if (stop !== undefined) {
        return stop;
      }
    }
    addr = end;
  }
  return undefined;
}

function collectPages(
  range: WalkedRange,
  mm: AddressSpace,
  vpn: number,
  end: number,
  origin: number,
): WalkStop | undefined {
  const copyRun = isDefaultFormat(range) ? copyDefaultRun : convertRun;
  for (let v = vpn; v < end; ) {
    const block = mm.pageTable.block(blockOfVpn(v));
    const from = indexInBlock(v);
    const to = Math.min(PAGES_PER_BLOCK, from + (end - v));
    if (block === undefined) {
      range.pfns.fill(range.values.none, v - origin, v - origin + (to - from));
    } else {
      for (let i = from; i < to; i++) {
        i = copyRun(range, block, i, to, v - origin + (i - from));
        if (i < to) {
          const page = v + (i - from);
          const unusable = unusableEntry(range, block[i]);
          if (unusable !== undefined && !range.marksErrors) {
            return stopAt(range, page, "EFAULT", unusable.why, unusable.entry);
          }
          range.pfns[page - origin] = unusable?.entry ?? absentEntry(range, mm, block[i]);
        }
      }
    }
    v += to - from;
  }
  return undefined;
}

function isDefaultFormat({ flags, pfnShift }: HmmPfnFormat): boolean {
  return (
    pfnShift === DEFAULT_PFN_SHIFT && flags.valid === DEFAULT_PFN_FLAGS.valid && flags.write === DEFAULT_PFN_FLAGS.write
  );
}

/** Copies entries `[i, to)` until one that is neither present nor empty; returns its index, or `to`. */
function copyDefaultRun(range: WalkedRange, block: Uint32Array, i: number, to: number, at: number): number {
  const { pfns } = range;
  const { none } = range.values;
  let o = at;
  for (let k = i; k < to; k++, o++) {
    const pte = block[k];
    if ((pte & PTE_PRESENT) !== 0) {
      pfns[o] = pte & DEFAULT_ENTRY_MASK;
    } else if (pte === 0) {
      pfns[o] = none;
    } else {
      return k;
    }
  }
  return to;
}

/** {@link copyDefaultRun} for a driver's own bits. */
function convertRun(range: WalkedRange, block: Uint32Array, i: number, to: number, at: number): number {
  const { pfns, pfnShift, flags } = range;
  const { none } = range.values;
  const readWrite = flags.valid | flags.write;
  let o = at;
  for (let k = i; k < to; k++, o++) {
    const pte = block[k];
    if ((pte & PTE_PRESENT) !== 0) {
      pfns[o] = (ptePfn(pte) << pfnShift) | ((pte & PTE_WRITE) !== 0 ? readWrite : flags.valid);
    } else if (pte === 0) {
      pfns[o] = none;
    } else {
      return k;
    }
  }
  return to;
}

/** A page on its way or in another device's memory is no page for this driver. */
function absentEntry(range: WalkedRange, mm: AddressSpace, pte: number): number {
  if (!isOwnDeviceEntry(range, mm, pte)) {
    return range.values.none;
  }
  const { flags, pfnShift } = range;
  return (ptePfn(pte) << pfnShift) | flags.valid | flags.devicePrivate | ((pte & PTE_WRITE) !== 0 ? flags.write : 0);
}

/** Makes the entries from `vpn` on `none`. */
export function clearTail(range: WalkedRange, vpn: number): void {
  range.pfns.fill(range.values.none, vpn - vpnOf(range.start), vpnOf(range.end) - vpnOf(range.start));
}
