/** The suite's tests of beginnings and ends: of opens, of address spaces, of the driver, and of memory. */
import { PAGE_SIZE } from "../base/index.ts";
import { equalBytes, fails, pattern } from "./expect.ts";
import { failEachAllocation } from "./leaks.ts";
import { BASE } from "./machine.ts";
import type { SuiteTest } from "./suite-memory.ts";

/** By name. */
export const LIFETIME_TESTS: Readonly<Record<string, SuiteTest>> = {
  "an address space may exit while the device is open for it": async (machine) => {
    const { mm, device } = await machine.open();
    await device.write(BASE, pattern(64, 1));
    await mm[Symbol.asyncDispose]();
    await fails(device.read(BASE, 4), ["EFAULT", "ESRCH", "ENODEV"], "a read after exit");
  },
  "what the device wrote stays when the driver is unloaded": async (machine) => {
    const { map, device } = await machine.open();
    const bytes = pattern(map.length, 2);
    await device.write(BASE, bytes);
    await machine.driver.unload();
    equalBytes(await map.read(), bytes, "the CPU's view");
  },
  "unload is idempotent, and nothing can be opened after it": async (machine) => {
    const { mm } = await machine.open();
    await machine.driver.unload();
    await machine.driver.unload();
    await fails((async () => machine.driver.open(mm))(), ["ENODEV"], "open after unload");
  },
  "the driver can be unloaded while its spaces exit": async (machine) => {
    const { mm, device } = await machine.open();
    await device.write(BASE, pattern(64, 3));
    await Promise.all([mm[Symbol.asyncDispose](), machine.driver.unload()]);
  },
  "an open can be closed while another goes on": async (machine) => {
    const { mm, map, device } = await machine.open(2);
    const other = await machine.driver.open(mm);
    await other.write(BASE, pattern(64, 4));
    await other.close?.();
    await map.write(0, Uint8Array.of(1, 2, 3, 4));
    equalBytes(await device.read(BASE, 4), Uint8Array.of(1, 2, 3, 4), "the other open");
  },
  "a space without a mapping has nothing for the device": async (machine) => {
    const device = await machine.driver.open(machine.space());
    await fails(device.read(BASE, 4), ["EFAULT"], "a read of nothing");
  },
  "whichever allocation fails, the driver says ENOMEM and nothing is lost": async (machine) => {
    const { mm, map, device } = await machine.open(2);
    await map.write(0, pattern(PAGE_SIZE, 5));
    await failEachAllocation(machine.memory, () => device.write(BASE + PAGE_SIZE, pattern(64, 6)));
    equalBytes(await map.read(0, PAGE_SIZE), pattern(PAGE_SIZE, 5), "the page that was there");
    equalBytes(await map.read(PAGE_SIZE, 64), pattern(64, 6), "the page that was written in the end");
    await failEachAllocation(machine.memory, async () => {
      const other = await machine.driver.open(mm);
      await other.close?.();
    });
  },
};
