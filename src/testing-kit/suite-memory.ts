/** The suite's tests of bytes: the CPU and the device see one memory. */
import { PAGE_SIZE } from "../base/index.ts";
import { MemoryObject } from "../mm/index.ts";
import { equalBytes, pattern } from "./expect.ts";
import { BASE, type TestMachine } from "./machine.ts";

/** A test of the suite. */
export type SuiteTest = (machine: TestMachine) => Promise<void>;

/** By name. */
export const MEMORY_TESTS: Readonly<Record<string, SuiteTest>> = {
  "the device reads what the CPU wrote": async (machine) => {
    const { map, device } = await machine.open();
    const bytes = pattern(map.length, 1);
    await map.write(0, bytes);
    equalBytes(await device.read(BASE, map.length), bytes, "the device's view");
  },
  "the CPU reads what the device wrote": async (machine) => {
    const { map, device } = await machine.open();
    const bytes = pattern(map.length, 2);
    await device.write(BASE, bytes);
    equalBytes(await map.read(), bytes, "the CPU's view");
  },
  "pages that nobody wrote are zeros for the device": async (machine) => {
    const { device } = await machine.open();
    equalBytes(await device.read(BASE + PAGE_SIZE, 64), new Uint8Array(64), "an untouched page");
  },
  "accesses across pages, and inside of one, touch just their bytes": async (machine) => {
    const { map, device } = await machine.open();
    const expected = pattern(map.length, 3);
    await map.write(0, expected);
    for (const [offset, length] of [
      [PAGE_SIZE - 8, 16],
      [4, 4],
      [PAGE_SIZE * 2 - 4, PAGE_SIZE + 8],
    ] as const) {
      const bytes = pattern(length, offset);
      await device.write(BASE + offset, bytes);
      expected.set(bytes, offset);
      equalBytes(await device.read(BASE + offset, length), bytes, `${length} bytes at ${offset}`);
    }
    equalBytes(await map.read(), expected, "the CPU's view");
  },
  "neither sees old bytes, however often the page goes back and forth": async (machine) => {
    const { map, device } = await machine.open(1);
    for (let round = 0; round < 8; round++) {
      const byCpu = pattern(32, round);
      await map.write(64, byCpu);
      equalBytes(await device.read(BASE + 64, 32), byCpu, `round ${round}, the device`);
      const byDevice = pattern(32, round + 100);
      await device.write(BASE + 64, byDevice);
      equalBytes(await map.read(64, 32), byDevice, `round ${round}, the CPU`);
    }
  },
  "a store through a lease is seen by the device afterwards": async (machine) => {
    const { map, device } = await machine.open(2);
    await device.read(BASE, 64);
    {
      using lease = await map.lease("rw");
      lease.u32.fill(7);
    }
    equalBytes(await device.read(BASE, 8), Uint8Array.of(7, 0, 0, 0, 7, 0, 0, 0), "the device's view");
  },
  "two devices of one space see each other's writes": async (machine) => {
    const { mm, map, device } = await machine.open(2);
    const other = await machine.driver.open(mm);
    for (let round = 0; round < 4; round++) {
      const bytes = pattern(64, round);
      await (round % 2 === 0 ? device : other).write(BASE + PAGE_SIZE - 32, bytes);
      equalBytes(await (round % 2 === 0 ? other : device).read(BASE + PAGE_SIZE - 32, 64), bytes, `round ${round}`);
    }
    equalBytes(await map.read(PAGE_SIZE - 32, 64), pattern(64, 3), "the CPU's view");
  },
  "spaces that share memory see what a device of one of them writes": async (machine) => {
    const object = new MemoryObject(machine.memory, { pages: 2 });
    const spaces = [machine.space(), machine.space()];
    const [first, second] = await Promise.all(
      spaces.map((mm) => mm.mmap({ addr: BASE, length: 2 * PAGE_SIZE, fixed: true, shared: true, object })),
    );
    await object.put();
    const device = await machine.driver.open(spaces[0] ?? machine.space());
    const bytes = pattern(PAGE_SIZE, 5);
    await second?.write(0, bytes);
    equalBytes(await device.read(BASE, PAGE_SIZE), bytes, "the device's view");
    await device.write(BASE + PAGE_SIZE, bytes);
    equalBytes((await second?.read(PAGE_SIZE, PAGE_SIZE)) ?? new Uint8Array(), bytes, "the other space's view");
    equalBytes((await first?.read(PAGE_SIZE, PAGE_SIZE)) ?? new Uint8Array(), bytes, "its own space's view");
  },
};
