/** Address spaces: faults, lookups, and what they cost in memory. */
import { AddressSpace, MemoryObject, PhysicalMemory } from "../dist/mm/index.js";
import { SoftwareMmu } from "../dist/platform/software/cpu-mmu.js";
import { interleaved, liveBytes, milliseconds } from "./measure.mjs";

const PAGE = 4096;
const GIB = 2 ** 30;
const PAGES = GIB / PAGE;
const ROUNDS = 9;
const LOOKUPS = 500_000;

const create = () => AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });

/** A figure that is taken on a mapping of an address space of its own. */
async function withMapping(options, body) {
  const mm = create();
  try {
    return await body(await mm.mmap(options));
  } finally {
    await mm.mmput();
  }
}

/** Nanoseconds a page that a lease of the whole mapping takes. */
async function leaseTime(mapping, mode) {
  const ms = await milliseconds(async () => (await mapping.lease(mode)).release());
  return (ms * 1e6) / PAGES;
}

const firstTouch = () => withMapping({ length: GIB }, (mapping) => leaseTime(mapping, "rw"));

const upgrade = () =>
  withMapping({ length: GIB }, async (mapping) => {
    await leaseTime(mapping, "r");
    return leaseTime(mapping, "rw");
  });

const resident = () =>
  withMapping({ length: GIB }, async (mapping) => {
    await leaseTime(mapping, "rw");
    return leaseTime(mapping, "rw");
  });

const onePage = () =>
  withMapping({ length: GIB / 4 }, async (mapping) => {
    (await mapping.lease("rw")).release();
    const ms = await milliseconds(() => {
      for (let i = 0; i < 100_000; i++) {
        mapping.lease("rw", { offset: (i % 50_000) * PAGE, length: PAGE }).release();
      }
    });
    return (ms * 1e6) / 100_000;
  });

/** An address space of many one-page mappings with holes between, and a way to time lookups in it. */
async function manyMappings(count) {
  const memory = new PhysicalMemory(new SoftwareMmu());
  const mm = AddressSpace.create({ memory });
  const object = new MemoryObject(memory, { pages: 1 });
  const base = 2 ** 42;
  for (let i = 0; i < count; i++) {
    await mm.mmap({ addr: base + 2 * i * PAGE, fixed: true, length: PAGE, shared: true, object });
  }
  const lookup = async () => {
    let found = 0;
    let at = 1;
    const ms = await milliseconds(() => {
      for (let i = 0; i < LOOKUPS; i++) {
        at = (Math.imul(at, 1_664_525) + 1_013_904_223) >>> 0;
        found += mm.vmas.find(base + 2 * (at % count) * PAGE + 8) === undefined ? 0 : 1;
      }
    });
    if (found !== LOOKUPS) {
      throw new Error(`only ${found} of ${LOOKUPS} addresses were found`);
    }
    return (ms * 1e6) / LOOKUPS;
  };
  const end = async () => {
    await mm.mmput();
    await object.put();
  };
  return { lookup, end };
}

/** Bytes of bookkeeping a page, once every page of 1 GiB was touched. */
async function bytesPerPage() {
  const before = liveBytes();
  return withMapping({ length: GIB }, async (mapping) => {
    (await mapping.lease("rw")).release();
    return (liveBytes() - before) / PAGES;
  });
}

/** KiB that a mapping of 1 TiB costs before anybody touches it. */
async function unpopulated() {
  const before = liveBytes();
  return withMapping({ length: 2 ** 40 }, async () => Math.max(0, liveBytes() - before) / 1024);
}

export async function metrics() {
  const few = await manyMappings(100);
  const many = await manyMappings(100_000);
  const lookups = await interleaved(ROUNDS, { few: few.lookup, many: many.lookup });
  await few.end();
  await many.end();
  const faults = await interleaved(ROUNDS, { firstTouch, upgrade, resident, onePage });
  const memory = await interleaved(3, { bytesPerPage, unpopulated });
  return [
    { name: "mm.fault.ns_per_page", value: faults.firstTouch, unit: "ns", better: "lower" },
    { name: "mm.upgrade.ns_per_page", value: faults.upgrade, unit: "ns", better: "lower" },
    { name: "mm.resident.ns_per_page", value: faults.resident, unit: "ns", better: "lower" },
    { name: "mm.lease.ns", value: faults.onePage, unit: "ns", better: "lower" },
    { name: "mm.vma.lookup_ns", value: lookups.many, unit: "ns", better: "lower" },
    { name: "mm.vma.lookup_ratio", value: lookups.many / lookups.few, unit: "x", better: "lower" },
    { name: "mm.bytes_per_page", value: memory.bytesPerPage, unit: "B", better: "lower" },
    { name: "mm.unpopulated_tib.kib", value: memory.unpopulated, unit: "KiB", better: "lower" },
  ];
}
