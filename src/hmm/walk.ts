/**
 * Synchronous page walks over a range. A walk acts on nothing: it records what is needed, its caller unwinds and acts.
 *
 * Two walks: {@link findNeed} compares the CPU's entries with what the range requests; {@link collect} turns them into the
 * range's pfns. Because nothing else runs during a walk, a collect sees one state of the page tables.
 */
import { addrOf, blockOfVpn, type Errno, indexInBlock, PAGES_PER_BLOCK, vpnOf } from "../base/index.ts";
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

/** Pages `[vpn, end)` of one VMA that must be faulted in, all alike. */
export interface FaultNeed {
  readonly kind: "need";
  readonly vma: Vma;
  readonly vpn: number;
  readonly end: number;
  readonly write: boolean;
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

type Need = "none" | "read" | "write";

/** A piece of the range in one VMA; or without pages (no VMA), for the reason `why`. */
interface Piece {
  readonly vma: Vma | undefined;
  readonly end: number;
  readonly why: string;
}

const NOTHING_MAPPED = "nothing is mapped there";

/** The piece at `addr`, or why the walk stops there. */
function pieceAt(range: WalkedRange, mm: AddressSpace, addr: number): WalkStop | Piece {
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

function stopAt(range: WalkedRange, vpn: number, code: Errno, why: string, entry = range.values.none): WalkStop {
  return { kind: "stop", vpn, code, why, entry };
}

/**
 * The first pages, at most `maxPages`, whose entries grant less than requested; or the first page that can never. `parts`: see
 * HmmFaultOptions.
 */
export function findNeed(
  range: WalkedRange,
  mm: AddressSpace,
  maxPages: number,
  parts?: readonly number[],
): FaultNeed | WalkStop | undefined {
  const uniform = range.pfnFlagsMask === 0;
  if (uniform && (range.defaultFlags & range.flags.valid) === 0) {
    return undefined;
  }
  for (let addr = range.start; addr < range.end; ) {
    const piece = pieceAt(range, mm, addr);
    if ("kind" in piece) {
      return piece;
    }
    const found =
      piece.vma === undefined
        ? requestInHole(range, vpnOf(addr), vpnOf(piece.end), piece.why, parts)
        : needInVma(range, mm, piece.vma, vpnOf(addr), vpnOf(piece.end), maxPages, parts);
    if (found !== undefined) {
      return found;
    }
    addr = piece.end;
  }
  return undefined;
}

function requestOf(range: WalkedRange, vpn: number): number {
  return (range.pfns[vpn - vpnOf(range.start)] & range.pfnFlagsMask) | range.defaultFlags;
}

function requestInHole(
  range: WalkedRange,
  vpn: number,
  end: number,
  why: string,
  parts: readonly number[] | undefined,
): WalkStop | undefined {
  return forEachWanted(range, vpn, end, parts, (from, to) => {
    for (let v = from; v < to; v++) {
      if (requestOf(range, v) & range.flags.valid) {
        return stopAt(range, v, "EFAULT", why);
      }
    }
    return undefined;
  });
}

/** Calls `visit` for the wanted runs of `[vpn, end)` until it answers: all of it without `parts`. */
function forEachWanted<T>(
  { start }: WalkedRange,
  vpn: number,
  end: number,
  parts: readonly number[] | undefined,
  visit: (vpn: number, end: number) => T | undefined,
): T | undefined {
  if (parts === undefined) {
    return visit(vpn, end);
  }
  const origin = vpnOf(start);
  for (let i = 0; i < parts.length; i += 2) {
    const from = Math.max(vpn, origin + parts[i]);
    const to = Math.min(end, origin + parts[i + 1]);
    const found = from < to ? visit(from, to) : undefined;
    if (found !== undefined) {
      return found;
    }
  }
  return undefined;
}

function needInVma(
  range: WalkedRange,
  mm: AddressSpace,
  vma: Vma,
  vpn: number,
  end: number,
  maxPages: number,
  parts: readonly number[] | undefined,
): FaultNeed | WalkStop | undefined {
  return forEachWanted(range, vpn, end, parts, (from, to) => {
    const first = skipSatisfied(range, mm, from, to);
    return first === to ? undefined : needFrom(range, mm, vma, first, Math.min(to, first + maxPages));
  });
}

/** The pages from `first` on, which is not satisfied, that need the same. */
function needFrom(
  range: WalkedRange,
  mm: AddressSpace,
  vma: Vma,
  first: number,
  limit: number,
): FaultNeed | WalkStop | undefined {
  const need = needOf(range, mm, first);
  if (typeof need !== "string") {
    return need;
  }
  if (need === "write" && (vma.flags & VmFlags.Write) === 0) {
    return stopAt(range, first, "EPERM", `${vma.name} is not writable: mprotect it, or ask for read access only`);
  }
  let last = first + 1;
  while (last < limit && needOf(range, mm, last) === need) {
    last++;
  }
  return { kind: "need", vma, vpn: first, end: last, write: need === "write" };
}

/** The first page of `[vpn, end)` that is not plainly satisfied, or `end`. */
function skipSatisfied(range: WalkedRange, mm: AddressSpace, vpn: number, end: number): number {
  const write = range.defaultFlags & range.flags.write;
  const enough = write === 0 ? PTE_PRESENT : PTE_PRESENT | PTE_WRITE;
  const uniform = range.pfnFlagsMask === 0;
  for (let v = vpn; v < end; ) {
    const block = mm.pageTable.block(blockOfVpn(v));
    const from = indexInBlock(v);
    const to = Math.min(PAGES_PER_BLOCK, from + (end - v));
    if (uniform && block !== undefined) {
      let i = from;
      // Mostly all are: eight entries a step.
      while (i + 8 <= to && (allOf8(block, i) & enough) === enough) {
        i += 8;
      }
      while (i < to && (block[i] & enough) === enough) {
        i++;
      }
      if (i < to) {
        // Not present and writable, but perhaps own device memory, which is as good.
        if (needOf(range, mm, v + (i - from)) !== "none") {
          return v + (i - from);
        }
        i++;
      }
      v += i - from;
    } else if (needOf(range, mm, v) === "none") {
      v++;
    } else {
      return v;
    }
  }
  return end;
}

function allOf8(block: Uint32Array, i: number): number {
  return (
    block[i] & block[i + 1] & block[i + 2] & block[i + 3] & block[i + 4] & block[i + 5] & block[i + 6] & block[i + 7]
  );
}

/** @linux mm/hmm.c hmm_pte_need_fault (5.4) */
function needOf(range: WalkedRange, mm: AddressSpace, vpn: number): Need | WalkStop {
  const { flags } = range;
  const pte = mm.pageTable.get(vpn);
  const request = requestOf(range, vpn);
  if (pte & PTE_PRESENT) {
    const lacksWrite = (request & flags.valid) !== 0 && (request & flags.write) !== 0 && (pte & PTE_WRITE) === 0;
    return lacksWrite ? "write" : "none";
  }
  const unusable = pte === 0 ? undefined : unusableEntry(range, pte);
  if (unusable !== undefined) {
    return range.marksErrors && (request & flags.valid) === 0
      ? "none"
      : stopAt(range, vpn, "EFAULT", unusable.why, unusable.entry);
  }
  if ((request & flags.valid) === 0 || (isOwnDeviceEntry(range, mm, pte) && (request & flags.devicePrivate) === 0)) {
    return "none";
  }
  return request & flags.write ? "write" : "read";
}

function unusableEntry(range: WalkedRange, pte: number): { entry: number; why: string } | undefined {
  switch (pteKind(pte)) {
    case PteKind.Poisoned:
      return { entry: range.values.error, why: "the only copy of the page was lost" };
    case PteKind.Special:
      return { entry: range.values.special, why: "the mapping has no page there" };
    default:
      return undefined;
  }
}

function isOwnDeviceEntry(range: WalkedRange, mm: AddressSpace, pte: number): boolean {
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

/** `[vpn, end)` of a need, in addresses. */
export function needBounds(need: FaultNeed): { readonly start: number; readonly end: number } {
  return { start: addrOf(need.vpn), end: addrOf(need.end) };
}
