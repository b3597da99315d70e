/**
 * Plain arrays of application threads, on an MMU that traps them: what their accesses mean for an object.
 *
 * The bytes of a window are seen twice: by this thread, always and without traps, and by applications through the trap,
 * page by page. A page that the trap shows is write-protected in a way that costs the writer next to nothing: a write is
 * not announced when it happens but collected later, before anybody relies on there having been none.
 */
import { chain, type MaybePromise } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { MemoryObject } from "./memory-object.ts";
import { PageFlag } from "./page-flags.ts";
import type { CpuTrap } from "./ports.ts";
import { announceRuns } from "./rmap.ts";
import { VmFlags } from "./vma.ts";
import { forEachWindow } from "./window-pages.ts";

/** Pages of an object that share a window, as seen by the window's trap. */
interface TrapPart {
  readonly trap: CpuTrap;
  /** Pages of the window, and what to add to get pages of the object. */
  readonly page: number;
  readonly end: number;
  readonly base: number;
}

function trapParts(object: MemoryObject, page: number, end: number): TrapPart[] {
  const parts: TrapPart[] = [];
  if (object.memory.mmu.traps) {
    forEachWindow(page, end, (from, to) => {
      const found = object.windows.trapAt(from);
      if (found !== undefined) {
        parts.push({ trap: found.trap, page: from - found.base, end: to - found.base, base: found.base });
      }
    });
  }
  return parts;
}

/**
 * Takes pages away from plain arrays: the next access is a fault. False when they were written since the last
 * {@link syncCpuWrites}, which the caller then has to call and look again.
 */
export function unmapFromCpu(object: MemoryObject, page: number, end: number): boolean {
  let clean = true;
  for (const part of trapParts(object, page, end)) {
    clean = part.trap.unmap(part.page, part.end) && clean;
  }
  return clean;
}

/**
 * Takes pages away from plain arrays until disposed: whoever touches them meanwhile waits. For whoever is about to move
 * pages and must not be overtaken by writes for ever. Must not be held while waiting for an application.
 */
export function holdFromCpu(object: MemoryObject, page: number, end: number): Disposable | undefined {
  const holds = trapParts(object, page, end).map((part) => part.trap.hold(part.page, part.end));
  if (holds.length === 0) {
    return undefined;
  }
  unmapFromCpu(object, page, end);
  return {
    [Symbol.dispose]: () => {
      for (const hold of holds) {
        hold[Symbol.dispose]();
      }
    },
  };
}

/**
 * Announces what plain arrays wrote to pages `[page, end)` since the last call, as an invalidation like any other, and
 * marks it dirty. From here on the next writes are noticed by the next call.
 *
 * Synchronous when nothing was written and when no callback has to wait.
 */
export function syncCpuWrites(object: MemoryObject, page: number, end: number): MaybePromise<void> {
  const found: number[] = [];
  for (const part of trapParts(object, page, end)) {
    part.trap.collectWritten(part.page, part.end, (from, to) => found.push(from + part.base, to + part.base));
  }
  if (found.length === 0) {
    return undefined;
  }
  const written = inOrder(found);
  return announceRuns(object, written, "clear", () => {
    if (object.pager !== undefined) {
      for (let i = 0; i < written.length; i += 2) {
        object.reserve(written[i], written[i + 1]);
        object.updateFlags(written[i], written[i + 1], PageFlag.Dirty, 0);
      }
    }
  });
}

/** Runs of pages in order, none twice: a trap tells first of what it hid before. */
function inOrder(runs: number[]): number[] {
  let sorted = true;
  for (let i = 2; i < runs.length; i += 2) {
    sorted &&= runs[i] >= runs[i - 1];
  }
  if (sorted) {
    return runs;
  }
  const pairs: [number, number][] = [];
  for (let i = 0; i < runs.length; i += 2) {
    pairs.push([runs[i], runs[i + 1]]);
  }
  pairs.sort(([a], [b]) => a - b);
  const merged: number[] = [];
  for (const [from, to] of pairs) {
    const last = merged.length - 1;
    if (last > 0 && from <= merged[last]) {
      merged[last] = Math.max(merged[last], to);
    } else {
      merged.push(from, to);
    }
  }
  return merged;
}

/** Whether somebody maps pages of `[page, end)` without the right to write. */
export function hasReadOnly(object: MemoryObject, page: number, end: number): boolean {
  let found = false;
  object.vmas.forEachOverlap(page, end, ({ flags }) => {
    found ||= (flags & VmFlags.Write) === 0;
  });
  return found;
}

/**
 * Calls `visit` for each run of pages `[page, end)` that somebody maps and nobody maps writable: what plain arrays wrote there
 * they had no right to.
 */
export function forEachReadOnly(
  object: MemoryObject,
  page: number,
  end: number,
  visit: (page: number, end: number) => void,
): void {
  const rights = new Uint8Array(end - page);
  object.vmas.forEachOverlap(page, end, ({ pgoff, pages, flags }) => {
    const right = flags & VmFlags.Write ? 2 : 1;
    for (let p = Math.max(page, pgoff); p < Math.min(end, pgoff + pages); p++) {
      rights[p - page] |= right;
    }
  });
  for (let from = 0; from < rights.length; from++) {
    let to = from;
    while (rights[to] === 1) {
      to++;
    }
    if (to > from) {
      visit(page + from, page + to);
      from = to;
    }
  }
}

/** {@link syncCpuWrites} of what a space maps without the right to write. */
export function syncReadOnly(mm: AddressSpace): MaybePromise<void> {
  let synced = undefined as MaybePromise<void>;
  for (const { object, pgoff, pages, flags } of [...mm.vmas.values()]) {
    if (!(flags & VmFlags.Write)) {
      synced = chain(synced, () => syncCpuWrites(object, pgoff, Math.min(object.pages, pgoff + pages)));
    }
  }
  return synced;
}

/** {@link syncCpuWrites} of everything that a space maps. */
export function syncSpace(mm: AddressSpace): MaybePromise<void> {
  let synced = undefined as MaybePromise<void>;
  if (mm.memory.mmu.traps) {
    for (const { object, pgoff, pages } of [...mm.vmas.values()]) {
      synced = chain(synced, () => syncCpuWrites(object, pgoff, Math.min(object.pages, pgoff + pages)));
    }
  }
  return synced;
}
