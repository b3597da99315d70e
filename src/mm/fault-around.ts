/** How far around what the CPU asks for pages are brought in one go. */
import { blockOfVpn, indexInBlock, PAGES_PER_BLOCK } from "../base/index.ts";
import type { MemoryObject } from "./memory-object.ts";
import { PageFlag } from "./page-flags.ts";
import { VmFlags } from "./vma.ts";

/**
 * The pages to bring home when `[page, end)` are asked for: the largest aligned stretch, of up to 2 MiB, of which more than
 * half is at home or asked for, as far as the same VMA maps it. So who walks over what a kernel wrote waits for a few large
 * pieces, and who picks single pages gets single pages.
 */
export function deviceStretch(object: MemoryObject, page: number, end: number): readonly [number, number] {
  const block = object.block(blockOfVpn(page));
  if (block === undefined || blockOfVpn(end - 1) !== blockOfVpn(page)) {
    return [page, end];
  }
  const first = indexInBlock(page);
  const stop = first + (end - page);
  const size = densestNode(block.flags, first, stop);
  const [low, high] = mappedAround(object, page) ?? [page, end];
  const base = page - first;
  const from = Math.max(low, base + first - (first % size));
  const to = Math.min(high, base + Math.ceil(stop / size) * size);
  return [Math.min(page, from), Math.max(end, to)];
}

/** Size of the largest node that contains `[first, stop)` of a block's pages and is dense. */
function densestNode(flags: Uint8Array, first: number, stop: number): number {
  let densest = 1;
  for (let size = 2; size <= PAGES_PER_BLOCK; size *= 2) {
    const from = first - (first % size);
    const to = Math.min(PAGES_PER_BLOCK, Math.ceil(stop / size) * size);
    let there = stop - first;
    for (let i = from; i < to; i++) {
      there += (i < first || i >= stop) && (flags[i] & PageFlag.Uptodate) !== 0 ? 1 : 0;
    }
    if (there * 2 > to - from) {
      densest = size;
    }
  }
  return densest;
}

/** The pages around one that the same readable VMA maps. */
export function mappedAround(object: MemoryObject, page: number): readonly [number, number] | undefined {
  let found: readonly [number, number] | undefined;
  object.vmas.forEachOverlap(page, page + 1, (vma) => {
    if (vma.flags & VmFlags.Read) {
      found ??= [vma.pgoff, Math.min(object.pages, vma.pgoff + vma.pages)];
    }
  });
  return found !== undefined && page < found[1] ? found : undefined;
}
