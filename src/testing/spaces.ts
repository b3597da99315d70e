/** Address spaces for tests, on the software MMU. */
import { addrOf, type MaybePromise, type VirtAddr } from "../base/index.ts";
import { AddressSpace, type MmuNotifierRange, PhysicalMemory } from "../mm/index.ts";
import { testMmu } from "./mmu.ts";

/** Where tests map: above 2^40, where 32-bit arithmetic would show. */
export const BASE = 2 ** 41;

/** A fresh address space over memory of its own. Dispose it. */
export function createSpace(): AddressSpace {
  return AddressSpace.create({ memory: new PhysicalMemory(testMmu()) });
}

/** An invalidation of pages `[page, end)` counted from {@link BASE}. */
export function invalidation(
  mm: AddressSpace,
  page: number,
  end: number,
  more: Partial<MmuNotifierRange> = {},
): MmuNotifierRange {
  const first = BASE / 4096;
  const at = (p: number): VirtAddr => addrOf(first + p);
  return { mm, start: at(page), end: at(end), blockable: true, event: "clear", ...more };
}

/** Starts an invalidation; the function that comes back ends it. For a start that is synchronous and succeeds. */
export function begin(range: MmuNotifierRange): () => MaybePromise<void> {
  const started = range.mm.notifiers?.invalidateRangeStart(range) ?? 0;
  if (started !== 0) {
    throw new Error(`the start answered ${String(started)}`);
  }
  return () => range.mm.notifiers?.invalidateRangeEnd(range);
}

/** A turn of the event loop: everything that can go on without outside help has gone on. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}
