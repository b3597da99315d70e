/** Migration on the reference device, in batches of 2 MiB with the copy, and invalidation beside many interval notifiers. */
import { DmirrorDriver } from "../dist/drivers/dmirror/index.js";
import { AddressSpace, PhysicalMemory } from "../dist/mm/index.js";
import { MmuIntervalNotifier } from "../dist/mmu-notifier/index.js";
import { SoftwareMmu } from "../dist/platform/software/cpu-mmu.js";
import { interleaved, milliseconds } from "./measure.mjs";

const PAGE = 4096;
const BATCH = 2 * 2 ** 20;
const BATCHES = 16;
const ROUNDS = 11;
const INVALIDATIONS = 2_000;
const OVERLAPPING = 10;

const create = () => AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });

/** Written memory that goes to a device and comes home, batch by batch; microseconds a page. */
async function moving() {
  const mm = create();
  const driver = new DmirrorDriver();
  const device = await driver.open(mm);
  const mapping = await mm.mmap({ length: BATCHES * BATCH });
  const perPage = async (move) => {
    const ms = await milliseconds(async () => {
      for (let at = mapping.start; at < mapping.end; at += BATCH) {
        await move(at);
      }
    });
    return (ms * 1e3) / (mapping.length / PAGE);
  };
  {
    const lease = await mapping.lease("rw");
    lease.u8.fill(1);
    lease.release();
  }
  return {
    toDevice: () => perPage((at) => device.migrateToDevice(at, BATCH)),
    toHost: () => perPage((at) => device.migrateToSystem(at, BATCH)),
    async end() {
      await mm.mmput();
      await driver.unload();
    },
  };
}

/** `count` notifiers of which {@link OVERLAPPING} watch the pages that are invalidated; microseconds an invalidation. */
async function watched(count) {
  const mm = create();
  const mapping = await mm.mmap({ length: (count + 1) * 4 * PAGE });
  const ops = {
    name: "bench",
    invalidate(notifier, _range, seq) {
      notifier.setSeq(seq);
      return true;
    },
  };
  const notifiers = [];
  for (let i = 0; i < count; i++) {
    const at = i < OVERLAPPING ? mapping.start : mapping.start + (4 + i * 4) * PAGE;
    const notifier = new MmuIntervalNotifier(ops);
    await notifier.insert(mm, at, 2 * PAGE);
    notifiers.push(notifier);
  }
  const update = { mm, start: mapping.start, end: mapping.start + 2 * PAGE, blockable: true, event: "clear" };
  return {
    async invalidate() {
      const ms = await milliseconds(() => {
        for (let i = 0; i < INVALIDATIONS; i++) {
          mm.notifiers.invalidateRangeStart(update);
          mm.notifiers.invalidateRangeEnd(update);
        }
      });
      return (ms * 1e3) / INVALIDATIONS;
    },
    async end() {
      for (const notifier of notifiers) {
        await notifier.remove();
      }
      await mm.mmput();
    },
  };
}

export async function metrics() {
  const pages = await moving();
  const few = await watched(OVERLAPPING);
  const many = await watched(10_000);
  // To the device and home again, in this order: each finds what the other left.
  const subjects = { toDevice: pages.toDevice, toHost: pages.toHost, few: few.invalidate, many: many.invalidate };
  await interleaved(2, subjects);
  const figures = await interleaved(ROUNDS, subjects);
  await pages.end();
  await few.end();
  await many.end();
  return [
    { name: "migrate.to_device.us_per_page", value: figures.toDevice, unit: "us", better: "lower" },
    { name: "migrate.to_host.us_per_page", value: figures.toHost, unit: "us", better: "lower" },
    { name: "interval.invalidate.us", value: figures.many, unit: "us", better: "lower" },
    { name: "interval.invalidate.ratio", value: figures.many / figures.few, unit: "x", better: "lower" },
  ];
}
