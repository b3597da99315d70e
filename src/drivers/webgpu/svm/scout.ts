/**
 * Scouts: a few invocations of each workgroup, run only for what they miss, before any of the workgroups runs. Neighbours touch
 * the same pages more often than not, so that a round which finds out everything and gets nothing done is saved. A scout stops at its
 * first miss, as in a quick round; it stores nothing and is not done, so it does not matter what it takes to be in memory.
 */
import { Control, headerWord } from "./control-layout.ts";
import { aloneIds, ENTRY, type EntryShape, LENGTHS } from "./entry.ts";

/** Scouts of a workgroup: its first invocation, its last, and some between, as far apart from each other as can be. */
const SCOUTS = 8;
/** A workgroup with fewer invocations for each of its scouts is run as soon as scouted. */
const LEAST_EACH = 4;
/** What fewer invocations find out takes little time. */
const LEAST_INVOCATIONS = 4096;
/** Scouts of many workgroups share one of the GPU's. */
const GROUP = 64;

/** Whether so many workgroups are worth scouts. */
export function areScouted(workgroups: number, invocations: number): boolean {
  return invocations >= SCOUTS * LEAST_EACH && workgroups * invocations >= LEAST_INVOCATIONS;
}

/** Scouts of so many workgroups. */
export function scoutsOf(workgroups: number): number {
  return workgroups * SCOUTS;
}

/** Workgroups of the GPU for the scouts of so many of the kernel's. */
export function scoutGroups(workgroups: number): number {
  return Math.ceil(scoutsOf(workgroups) / GROUP);
}

/** The entry point of the scouts. Those that miss something are counted as unfinished. */
export function scoutEntry(shape: EntryShape): string {
  const { name, args, invocations } = shape;
  const [x, y] = shape.workgroupSize;
  return `
@compute @workgroup_size(${GROUP})
fn ${ENTRY}(@builtin(workgroup_id) pm_hw: vec3u, @builtin(num_workgroups) pm_hw_grid: vec3u, @builtin(local_invocation_index) pm_of: u32) {
  ${LENGTHS}
  let pm_scout = (pm_hw.x + pm_hw.y * pm_hw_grid.x) * ${GROUP}u + pm_of;
  let pm_p = pm_scout / ${SCOUTS}u;
  if (pm_p >= ${headerWord(Control.Count)}) { return; }
  let pm_lidx = (pm_scout % ${SCOUTS}u) * ${invocations - 1}u / ${SCOUTS - 1}u;
  let pm_lid = vec3u(pm_lidx % ${x}u, pm_lidx / ${x}u % ${y}u, pm_lidx / ${x * y}u);
  pm_lane = pm_lidx;
  pm_workgroup = ${headerWord(Control.First)} + pm_p;
  ${aloneIds(shape)}
  ${name}(${args.join(", ")});
  if (pm_hurt != 0u) { atomicAdd(&pm_ctl[${Control.Unfinished}], 1u); }
}
`;
}
