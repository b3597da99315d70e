/** Ranges over address spaces, for tests of faults and snapshots. */
import { DEFAULT_PFN_FLAGS, DEFAULT_PFN_VALUES, HmmMirror, HmmRange, type HmmRangeOptions } from "../hmm/index.ts";
import { type AddressSpace, type MemoryObject, PageFlag } from "../mm/index.ts";
import { mmuNotifierSynchronize } from "../mmu-notifier/index.ts";
import { BASE, createSpace } from "./spaces.ts";

export const P = 4096;
export const VPN = BASE / P;
/** Bits of the default tables. */
export const V = DEFAULT_PFN_FLAGS.valid;
export const W = DEFAULT_PFN_FLAGS.write;
export const D = DEFAULT_PFN_FLAGS.devicePrivate;
export const NONE = DEFAULT_PFN_VALUES.none;

/** A space with a mirror, and ranges on it that end with it. */
export interface Setup extends AsyncDisposable {
  readonly mm: AddressSpace;
  readonly mirror: HmmMirror;
  range(page: number, end: number, more?: Partial<HmmRangeOptions>): HmmRange;
  pte(page: number): number;
}

/** Makes a {@link Setup}. */
export async function setUp(): Promise<Setup> {
  const mm = createSpace();
  const mirror = new HmmMirror({ name: "test", syncCpuDevicePagetables: () => 0 });
  await mirror.register(mm);
  const ranges: HmmRange[] = [];
  return {
    mm,
    mirror,
    pte: (page) => mm.pageTable.get(VPN + page),
    range(page, end, more) {
      const range = new HmmRange({ start: BASE + page * P, end: BASE + end * P, ...more });
      range.register(mirror);
      ranges.push(range);
      return range;
    },
    async [Symbol.asyncDispose]() {
      for (const range of ranges) {
        await range[Symbol.asyncDispose]();
      }
      await mirror.unregister();
      await mm.mmput();
      await mmuNotifierSynchronize();
    },
  };
}

/** Options of a mapping at a page counted from BASE. */
export const fixed = (page: number, pages: number) =>
  ({ addr: BASE + page * P, length: pages * P, fixed: true }) as const;

/** Faults under the mmap lock. */
export async function fault(s: Setup, range: HmmRange, options?: Parameters<HmmRange["faultLocked"]>[1]) {
  using lock = await s.mm.mmapLock.read();
  return await range.faultLocked(lock, options);
}

/** Snapshots under the mmap lock. */
export async function snapshot(s: Setup, range: HmmRange) {
  using lock = await s.mm.mmapLock.read();
  return range.snapshotLocked(lock);
}

/** One letter a page: `.` none, r, w, d own device memory, E error, S special. */
export function picture(range: HmmRange): string {
  const letter = (entry: number): string => {
    if (entry === NONE) {
      return ".";
    }
    if (entry === range.values.error || entry === range.values.special) {
      return entry === range.values.error ? "E" : "S";
    }
    return entry & D ? "d" : entry & W ? "w" : "r";
  };
  return [...range.pfns].map(letter).join("");
}

/** Marks pages of the mapping at page 0 as in transit; the function that comes back ends that. */
export function makeBusy(s: Setup, page: number, end: number): () => void {
  const object = objectOf(s);
  object.reserve(page, end);
  object.updateFlags(page, end, PageFlag.Busy, 0);
  return () => {
    object.updateFlags(page, end, 0, PageFlag.Busy);
    object.wq.wakeAll();
  };
}

/** What is mapped at page 0. */
export function objectOf(s: Setup): MemoryObject {
  const object = s.mm.vmas.find(BASE)?.object;
  if (object === undefined) {
    throw new Error("nothing is mapped");
  }
  return object;
}
