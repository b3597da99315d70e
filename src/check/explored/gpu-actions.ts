/** What applications and devices do with the WebGPU driver. */
import { allowed, withUser } from "./action.ts";
import { ACTIONS } from "./actions.ts";
import { DRIVER_ACTIONS } from "./driver-actions.ts";
import type { GpuWorld } from "./gpu-world.ts";
import { PAGE } from "./world.ts";

type GpuAction = (world: GpuWorld) => Promise<() => Promise<void>>;

/** A dispatch of the first device, after one that gave it the first half of the pages if `there`. */
function dispatch(there: boolean, body: (world: GpuWorld) => Promise<unknown>): GpuAction {
  return async (world) => {
    const gpu = await world.openGpu();
    if (there) {
      await world.dispatchAdd(gpu, 0, 2);
    }
    return () => allowed(world, () => body(world));
  };
}

/** By name; they meet each other, and what changes the space below them. */
export const GPU_ACTIONS: Readonly<Record<string, GpuAction>> = {
  dispatch: dispatch(false, async (world) => world.dispatchAdd(await world.openGpu(), 0, 2)),
  // Twice: a copy that was out of date when it came shows at the second look.
  "dispatch-read": dispatch(false, async (world) => {
    const gpu = await world.openGpu();
    await world.dispatchLook(gpu);
    await world.dispatchLook(gpu);
  }),
  "cpu-add": dispatch(true, (world) => withUser(world, () => world.cpuAdd())),
  "other-gpu": async (world) => {
    const other = await world.openGpu(1);
    return () => allowed(world, () => world.dispatchAdd(other, 1, 2));
  },
  // There is no memory for both: the first half has to go home.
  "gpu-evict": dispatch(true, async (world) => world.dispatchAdd(await world.openGpu(), 2, 2)),
  prefetch: dispatch(false, async (world) => {
    const { device } = await world.openGpu();
    await device.prefetch(world.data.range(0, 2 * PAGE), { write: true });
  }),
  "gpu-fork": dispatch(true, (world) => withUser(world, () => world.forkAndLook())),
  "gpu-lost": dispatch(true, async (world) => (await world.openGpu()).gpu.lose()),
  "gpu-unload": dispatch(true, (world) => world.gpuDriver.unload()),
};

const { munmap, mprotect, exit, "clear-runs": clearRuns } = ACTIONS;

/** What changes the space below them. */
export const SPACE_ACTIONS: Readonly<Record<string, GpuAction>> = {
  munmap: async (world) => munmap(world),
  mprotect: async (world) => mprotect(world),
  exit: async (world) => exit(world),
  "clear-runs": async (world) => clearRuns(world),
  dontneed: async (world) => {
    world.dropped = true;
    return DRIVER_ACTIONS.dontneed(world);
  },
};
