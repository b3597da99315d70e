/** Grids and workgroups of any form, and more workgroups than a dimension of the hardware's takes. */
import { test } from "vitest";
import { useTestGpu } from "../../../testing/gpu.ts";
import { checkSvm } from "../../../testing/svm-check.ts";

const gpu = useTestGpu("svm grids");

/** Words of a device page. */
const P = 4096;

const at = (words: Uint32Array, i: number): number => words[i] ?? 0;

test("over 65,535 workgroups, by linear ids", async () => {
  await checkSvm(gpu(), {
    pages: 24,
    wgsl: `@compute @workgroup_size(1) fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) n: vec3u) {
      pm_store_u32(4096u + wg.x, wg.x * 3u + n.x);
    }`,
    grid: [70_001, 1, 1],
    model: (w) => {
      for (let i = 0; i < 70_001; i++) {
        w[P + i] = i * 3 + 70_001;
      }
    },
    seeds: [5],
    pipelines: ["checked", "resident-linear"],
  });
});

test("grids and workgroups of two and three dimensions", async () => {
  await checkSvm(gpu(), {
    wgsl: `struct Ids {
      @builtin(global_invocation_id) gid: vec3u,
      @builtin(local_invocation_id) lid: vec3<u32>,
      @builtin(num_workgroups) grid: vec3u,
    }
    @compute @workgroup_size(4, 2, 2)
    fn main(ids: Ids, @builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) li: u32) {
      let size = ids.grid * vec3u(4u, 2u, 2u);
      let i = ids.gid.x + size.x * (ids.gid.y + size.y * ids.gid.z);
      let same = all(ids.gid == wg * vec3u(4u, 2u, 2u) + ids.lid) && li == ids.lid.x + 4u * (ids.lid.y + 2u * ids.lid.z);
      pm_store_u32(4096u + i, select(0u, pm_load_u32(4096u + i) + i, same));
    }`,
    grid: [5, 7, 3],
    model: (w) => {
      for (let i = 0; i < 5 * 7 * 3 * 16; i++) {
        w[P + i] = at(w, P + i) + i;
      }
    },
  });
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(2, 3) fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) n: vec3u,
      @builtin(local_invocation_index) li: u32) {
      pm_atomic_add_u32(4096u + wg.x + n.x * wg.y, li);
    }`,
    grid: [300, 20, 1],
    model: (w) => {
      for (let i = 0; i < 6000; i++) {
        w[P + i] = at(w, P + i) + 15;
      }
    },
    options: { window: 1500 },
    pipelines: ["checked", "resident"],
  });
});
