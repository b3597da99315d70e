/** What a range lacks: the walk that compares the CPU's entries with what the range requests. */
import { addrOf, blockOfVpn, indexInBlock, PAGES_PER_BLOCK, vpnOf } from "../base/index.ts";
import { type AddressSpace, firstEntry, PTE_PRESENT, PTE_WRITE, type Vma, VmFlags } from "../mm/index.ts";
import { isOwnDeviceEntry, pieceAt, stopAt, unusableEntry, type WalkedRange, type WalkStop } from "./walk.ts";

/** Pages `[vpn, end)` of one VMA that must be faulted in, all alike. */
export interface FaultNeed {
  readonly kind: "need";
  readonly vma: Vma;
  readonly vpn: number;
  readonly end: number;
  readonly write: boolean;
}

type Need = "none" | "read" | "write";

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
  const enough = enoughBits(range);
  if (
    parts !== undefined &&
    range.pfnFlagsMask === 0 &&
    !mm.pageTable.someInRuns(parts, vpnOf(range.start), vpn, end, enough, enough, false)
  ) {
    // The usual case: they were there the last time.
    return undefined;
  }
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

/** Bits of an entry that plainly satisfies the range's one request. */
function enoughBits({ defaultFlags, flags }: WalkedRange): number {
  return defaultFlags & flags.write ? PTE_PRESENT | PTE_WRITE : PTE_PRESENT;
}

/** The first page of `[vpn, end)` that is not plainly satisfied, or `end`. */
function skipSatisfied(range: WalkedRange, mm: AddressSpace, vpn: number, end: number): number {
  const enough = enoughBits(range);
  const uniform = range.pfnFlagsMask === 0;
  for (let v = vpn; v < end; ) {
    const block = mm.pageTable.block(blockOfVpn(v));
    const from = indexInBlock(v);
    const to = Math.min(PAGES_PER_BLOCK, from + (end - v));
    if (uniform && block !== undefined) {
      let i = firstEntry(block, from, to, enough, enough, false);
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

/** `[vpn, end)` of a need, in addresses. */
export function needBounds(need: FaultNeed): { readonly start: number; readonly end: number } {
  return { start: addrOf(need.vpn), end: addrOf(need.end) };
}
