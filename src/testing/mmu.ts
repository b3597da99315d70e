/** Which MMU the tests use: `PAGEMIRROR_TEST_MMU=userfaultfd` runs the whole suite on the one that traps. */
import type { CpuMmu } from "../mm/index.ts";
import { SoftwareMmu } from "../platform/software/cpu-mmu.ts";
import { UserfaultfdMmu } from "../platform/userfaultfd/mmu.ts";

let shared: UserfaultfdMmu | undefined;

/** An MMU for one machine; on userfaultfd all machines of a process share one. */
export function testMmu(): CpuMmu {
  if (process.env.PAGEMIRROR_TEST_MMU !== "userfaultfd") {
    return new SoftwareMmu();
  }
  if (shared === undefined) {
    shared = new UserfaultfdMmu();
    shared.uffd.unref();
  }
  return shared;
}
