/** HMM: snapshots of present pages, and invalidation beside many registered ranges. */
import { HmmMirror, HmmRange } from "../dist/hmm/index.js";
import { AddressSpace, PhysicalMemory } from "../dist/mm/index.js";
import { mmuNotifierSynchronize } from "../dist/mmu-notifier/index.js";
import { SoftwareMmu } from "../dist/platform/software/cpu-mmu.js";
import { interleaved, milliseconds } from "./measure.mjs";

const PAGE = 4096;
const MIB = 2 ** 20;
const ROUNDS = 11;
const SIZES = { small: 64 * MIB, middle: 1024 * MIB, large: 4096 * MIB };
const INVALIDATIONS = 2_000;
const OVERLAPPING = 10;

/** An address space with a mirror that has nothing to drop. */
async function mirrored() {
  const mm = AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });
  const mirror = new HmmMirror({ name: "bench", syncCpuDevicePagetables: () => 0 });
  await mirror.register(mm);
  return {
    mm,
    mirror,
    async end() {
      await mirror.unregister();
      await mm.mmput();
      await mmuNotifierSynchronize();
    },
  };
}

/** Present pages and a range over them. */
async function presentRange({ mm, mirror }, bytes) {
  const mapping = await mm.mmap({ length: bytes });
  (await mapping.lease("rw")).release();
  const range = new HmmRange({ start: mapping.start, end: mapping.end });
  range.register(mirror);
  const snapshot = async () => {
    const lock = await mm.mmapLock.read();
    // Small ranges several times, so that each figure is of as much work.
    const times = Math.max(1, SIZES.middle / bytes);
    const ms = await milliseconds(() => {
      for (let i = 0; i < times; i++) {
        range.snapshotLocked(lock);
      }
    });
    lock.release();
    return (ms * 1e6) / (times * (bytes / PAGE));
  };
  return { range, snapshot };
}

/** A space with `count` registered ranges of which {@link OVERLAPPING} overlap the pages that are invalidated. */
async function rangesAround(count) {
  const space = await mirrored();
  const mapping = await space.mm.mmap({ length: (count + 1) * 4 * PAGE });
  const ranges = Array.from({ length: count }, (_, i) => {
    const at = i < OVERLAPPING ? mapping.start : mapping.start + (4 + i * 4) * PAGE;
    const range = new HmmRange({ start: at, end: at + 2 * PAGE });
    range.register(space.mirror);
    return range;
  });
  const update = { mm: space.mm, start: mapping.start, end: mapping.start + 2 * PAGE, blockable: true, event: "clear" };
  return {
    async invalidate() {
      const ms = await milliseconds(() => {
        for (let i = 0; i < INVALIDATIONS; i++) {
          space.mm.notifiers.invalidateRangeStart(update);
          space.mm.notifiers.invalidateRangeEnd(update);
        }
      });
      return (ms * 1e3) / INVALIDATIONS;
    },
    async end() {
      for (const range of ranges) {
        range.unregister();
      }
      await space.end();
    },
  };
}

export async function metrics() {
  const space = await mirrored();
  const small = await presentRange(space, SIZES.small);
  const middle = await presentRange(space, SIZES.middle);
  const large = await presentRange(space, SIZES.large);
  const few = await rangesAround(OVERLAPPING);
  const many = await rangesAround(10_000);
  const subjects = {
    small: small.snapshot,
    middle: middle.snapshot,
    large: large.snapshot,
    few: few.invalidate,
    many: many.invalidate,
  };
  await interleaved(2, subjects);
  const figures = await interleaved(ROUNDS, subjects);
  for (const { range } of [small, middle, large]) {
    range.unregister();
  }
  await space.end();
  await few.end();
  await many.end();
  return [
    { name: "hmm.snapshot.ns_per_page", value: figures.middle, unit: "ns", better: "lower" },
    { name: "hmm.snapshot.64mib_ratio", value: figures.small / figures.middle, unit: "x", better: "lower" },
    { name: "hmm.snapshot.4gib_ratio", value: figures.large / figures.middle, unit: "x", better: "lower" },
    { name: "notifier.invalidate.us", value: figures.many, unit: "us", better: "lower" },
    { name: "notifier.invalidate.ratio", value: figures.many / figures.few, unit: "x", better: "lower" },
  ];
}
