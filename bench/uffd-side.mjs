/** This library's side of bench/uffd.mjs, in a process of its own. Usage: uffd-side.mjs MODE PAGES AROUND; prints one figure. */
import { AddressSpace, openShared, PhysicalMemory, UserfaultfdMmu } from "../dist/node.js";
import { median } from "./measure.mjs";

const [mode, pagesText, aroundText] = process.argv.slice(2);
const pages = Number(pagesText);
const faultAround = Number(aroundText);
const PAGE = 4096;
/** Long-lived services are what matters, so the compiler has done its work before the clock starts: faults, and scans. */
const WARM_UP_PASSES = 8;
const WARM_UP_FAULTS = 2048;
const WARM_UP_SCANS = 60;

/** First touch of each page, from this thread, served by the service thread: microseconds a page. */
async function touch(inMemory) {
  const pm = await openShared({ mmu: "userfaultfd", device: false, faultAround });
  for (let pass = 0; pass < WARM_UP_PASSES; pass++) {
    const warm = await pm.mm.mmap({ length: WARM_UP_FAULTS * faultAround * PAGE });
    if (inMemory) {
      await warm.write(0, new Uint8Array(warm.length).fill(1));
    }
    for (let p = 0; p < WARM_UP_FAULTS * faultAround; p++) {
      Atomics.load(warm.u32, p * 1024);
    }
    await warm.munmap();
  }
  const data = await pm.mm.mmap({ length: pages * PAGE });
  if (inMemory) {
    for (let at = 0; at < data.length; at += 2 ** 24) {
      await data.write(at, new Uint8Array(Math.min(2 ** 24, data.length - at)).fill(1));
    }
  }
  const { u32 } = data;
  let sum = 0;
  const start = performance.now();
  for (let p = 0; p < pages; p++) {
    sum += Atomics.load(u32, p * 1024);
  }
  const ms = performance.now() - start;
  if (sum !== (inMemory ? 0x01010101 * pages : 0)) {
    throw new Error(`wrong sum ${sum}`);
  }
  const { faults } = await pm.counts();
  if (faults < pages / faultAround) {
    throw new Error(`only ${faults} faults`);
  }
  return (ms * 1000) / pages;
}

/** A mapping whose pages are all shown, in this thread. */
async function shown() {
  const mmu = new UserfaultfdMmu();
  const mm = AddressSpace.create({ memory: new PhysicalMemory(mmu) });
  const mapping = await mm.mmap({ length: pages * PAGE });
  await mapping.write(0, new Uint8Array(pages * PAGE).fill(1));
  const { object } = mm.vmas.find(mapping.start);
  const { trap } = object.windows.trapAt(0);
  mmu.populate(object, 0, pages);
  return { mmu, object, trap };
}

/** Find 1 % written pages and watch them again: milliseconds. */
async function scan() {
  const { trap } = await shown();
  const u32 = new Uint32Array(trap.buffer, trap.byteOffset, pages * 1024);
  const times = [];
  for (let round = 0; round < WARM_UP_SCANS + 21; round++) {
    for (let p = 0; p < pages; p += 100) {
      u32[p * 1024] = round;
    }
    let found = 0;
    const start = performance.now();
    trap.collectWritten(0, pages, (from, to) => {
      found += to - from;
    });
    times.push(performance.now() - start);
    if (found !== Math.ceil(pages / 100) && round > 0) {
      throw new Error(`${found} pages were written`);
    }
  }
  return median(times.slice(WARM_UP_SCANS));
}

/** All pages out and in again: milliseconds. */
async function evict() {
  const { mmu, object, trap } = await shown();
  let ms = 0;
  for (let round = 0; round < 3; round++) {
    const start = performance.now();
    trap.unmap(0, pages);
    mmu.populate(object, 0, pages);
    ms = performance.now() - start;
  }
  return ms;
}

const modes = { fault: () => touch(true), touch: () => touch(false), scan, evict };
const figure = await modes[mode]();
process.stdout.write(`${figure.toFixed(4)}\n`, () => process.exit(0));
