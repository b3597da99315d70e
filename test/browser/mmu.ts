/** In the place of src/testing/mmu.ts: browsers have the software MMU only. */
import { SoftwareMmu } from "../../src/platform/software/cpu-mmu.ts";

export const testMmu = () => new SoftwareMmu();
