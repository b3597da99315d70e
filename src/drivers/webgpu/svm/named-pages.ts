/** What a dispatch is told by its parameters. */
import { addrOfSvm } from "../../../mm/index.ts";
import { pageOfAddr } from "./page-entry.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";

/** Device pages of a mapping that is brought for its name alone: 512 KiB, which takes less time than the round it saves. */
const MOST_PAGES = 32;
/** And share of the pool that it may take. */
const MOST_SHARE = 1 / 8;

/**
 * The device pages of small mappings that words of a kernel's parameters point to. A guess, since a word can be any number;
 * but what a kernel is handed the address of it uses, and most often before all else. Those of the `others` are guessed already.
 */
export function namedPages(table: SvmTable, params: Uint32Array, others: readonly Demand[] = []): Demand[] {
  const pages = new Set<number>();
  const most = Math.min(MOST_PAGES, table.pool.capacity * MOST_SHARE);
  for (const word of params) {
    const vma = word === 0 ? undefined : table.mm.vmas.find(addrOfSvm(word));
    if (vma === undefined || pageOfAddr(vma.start) < 0) {
      continue;
    }
    const first = pageOfAddr(vma.start);
    const end = pageOfAddr(vma.end - 1) + 1;
    if (end - first <= most) {
      for (let page = first; page < end; page++) {
        pages.add(page);
      }
    }
  }
  for (const { page } of others) {
    pages.delete(page);
  }
  return [...pages].sort((a, b) => a - b).map((page) => ({ page, write: false, optional: true }));
}
