/** The generated entry point `pm_entry`: finds the workgroup's logical id, runs the kernel, and settles what came of it. */
import { Control, Fatal, headerWord } from "./control-layout.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import { AGAIN_IN_ORDER, BEGIN_IN_ORDER } from "./replay-order.ts";
import { TAINTED, WgFlag } from "./workgroup-flags.ts";

/** Name of the entry point that is generated. */
export const ENTRY = "pm_entry";

/** What of the user's entry point goes into the generated one. */
export interface EntryShape {
  readonly name: string;
  /** The text of `@workgroup_size(…)`. */
  readonly sizeAttribute: string;
  readonly invocations: number;
  readonly workgroupSize: readonly [number, number, number];
  /** An expression for each parameter, in terms of {@link BUILTINS}. */
  readonly args: readonly string[];
  /** Builtins that are passed through, by WGSL name and type. */
  readonly passed: ReadonlyMap<string, string>;
  /** Statements that give `var<private>` and `var<workgroup>` their first values again. */
  readonly resetPrivate: string;
  readonly resetWorkgroup: string;
}

/** Builtins that are computed from the logical workgroup, as the expressions that stand for them in the entry. */
export const BUILTINS: ReadonlyMap<string, string> = new Map([
  ["workgroup_id", "pm_id"],
  ["num_workgroups", "pm_grid"],
  ["local_invocation_id", "pm_lid"],
  ["local_invocation_index", "pm_lidx"],
  ["global_invocation_id", "pm_gid"],
]);

/** Builtins that mean the same in the generated entry point. */
export const PASSED_BUILTINS: ReadonlyMap<string, string> = new Map([
  ["subgroup_size", "u32"],
  ["subgroup_invocation_id", "u32"],
  ["subgroup_id", "u32"],
  ["num_subgroups", "u32"],
]);

/**
 * Never true. Every access is clamped to the length of its array; a compiler that has met the lengths here need not work them
 * out there, and some divide for them.
 */
export const LENGTHS = `if ((${["pm_pool", "pm_pt", "pm_ctl"].map((name) => `arrayLength(&${name})`).join(" | ")}) == 0u) { return; }`;

function header(shape: EntryShape): string {
  const passed = [...shape.passed].map(([name, type]) => `, @builtin(${name}) pm_in_${name}: ${type}`).join("");
  return `@compute ${shape.sizeAttribute}
fn ${ENTRY}(@builtin(workgroup_id) pm_hw: vec3u, @builtin(num_workgroups) pm_hw_grid: vec3u,
  @builtin(local_invocation_id) pm_lid: vec3u, @builtin(local_invocation_index) pm_lidx: u32${passed}) {
  ${LENGTHS}`;
}

function call(shape: EntryShape): string {
  return `${shape.name}(${shape.args.join(", ")});`;
}

function gid(shape: EntryShape): string {
  const [x, y, z] = shape.workgroupSize;
  return `let pm_gid = pm_id * vec3u(${x}u, ${y}u, ${z}u) + pm_lid;`;
}

const GRID = `vec3u(${[Control.GridX, Control.GridY, Control.GridZ].map((word) => headerWord(word)).join(", ")})`;
const POINT =
  "vec3u(pm_workgroup % pm_grid.x, (pm_workgroup / pm_grid.x) % pm_grid.y, pm_workgroup / pm_grid.x / pm_grid.y)";

/** `pm_logical(p)`: which workgroup runs as number p of the round. */
export const LOGICAL = `
fn pm_logical(p: u32) -> u32 {
  if (${headerWord(Control.Mode)} == 0u) { return ${headerWord(Control.First)} + p; }
  return atomicLoad(&pm_ctl[${headerWord(Control.ListIn)} + p]);
}
fn pm_append(workgroup: u32) {
  let at = atomicAdd(&pm_ctl[${Control.ListOutCount}], 1u);
  atomicStore(&pm_ctl[${headerWord(Control.ListOut)} + at], workgroup);
}
`;

/** The entry point of the resident pipeline: the hardware's workgroups are the kernel's. */
export function residentEntry(shape: EntryShape): string {
  return `
${header(shape)}
  pm_lane = pm_lidx;
  let pm_id = pm_hw;
  let pm_grid = pm_hw_grid;
  ${gid(shape)}
  ${call(shape)}
  if (pm_code != 0u || pm_past) {
    pm_judge();
    pm_workgroup = pm_hw.x + pm_hw_grid.x * (pm_hw.y + pm_hw_grid.y * pm_hw.z);
    pm_report();
  }
}
`;
}

/** The entry point of the resident pipeline for grids that the hardware does not take as they are. */
export function residentLinearEntry(shape: EntryShape): string {
  return `${LOGICAL}
var<workgroup> pm_wg_id: vec2u;
var<workgroup> pm_wg_grid: vec3u;
${header(shape)}
  if (pm_lidx == 0u) {
    let p = pm_hw.x + pm_hw.y * pm_hw_grid.x;
    pm_wg_id = vec2u(u32(p < ${headerWord(Control.Count)}), pm_logical(p));
    pm_wg_grid = ${GRID};
  }
  let pm_which = workgroupUniformLoad(&pm_wg_id);
  let pm_grid = workgroupUniformLoad(&pm_wg_grid);
  if (pm_which.x == 0u) { return; }
  pm_lane = pm_lidx;
  pm_workgroup = pm_which.y;
  let pm_id = ${POINT.replaceAll("pm_workgroup", "pm_which.y")};
  ${gid(shape)}
  ${call(shape)}
  if (pm_code != 0u || pm_past) {
    pm_judge();
    pm_report();
  }
}
`;
}

/** The entry point of the quick pipeline, and with what a run ends. */
export function quickEntry(shape: EntryShape, features: KernelFeatures, last = ""): string {
  return LOGICAL + invocationEntry(shape, features, { last });
}

/** The entry point of the checked pipeline. */
export function checkedEntry(shape: EntryShape, features: KernelFeatures): string {
  return LOGICAL + (features.collective ? workgroupEntry(shape, features) : invocationEntry(shape, features));
}

/** Some runs are probes, which a second one follows that makes the writes. */
export function probes(features: KernelFeatures): boolean {
  return features.logCanOverflow || features.defersBound;
}

/** What a run that has to be made once more has left other than 0. */
export function unwritten(features: KernelFeatures): string {
  const why = [features.logCanOverflow ? "pm_over" : "", features.defersBound ? "pm_again" : ""].filter(Boolean);
  return `(${why.join(" | ")})`;
}

/** An atomic was joined with a store in the log, which the second run has not. */
export function dieIfMixed(features: KernelFeatures, after = ""): string {
  return features.atomics === "immediate" && features.logCanOverflow
    ? `if (pm_mixed != 0u) { pm_die(${Fatal.StoreLogFull}u, pm_low_store); ${after} }`
    : "";
}

/** `break`s out of the loop round the kernel unless it has to run once more, to store directly. */
function onceMore(shape: EntryShape, features: KernelFeatures): string {
  return `if (pm_committing != 0u || ${unwritten(features)} == 0u || pm_hurt != 0u) { break; }
      ${dieIfMixed(features)}
      if (pm_hurt != 0u) { break; }
      ${rewind(shape, features)}`;
}

/** Back to where the run began, to make the writes. */
export function rewind(shape: EntryShape, features: KernelFeatures): string {
  const { writes, sharedStores, logCanOverflow } = features;
  return `pm_committing = 1u;
      ${logCanOverflow ? "pm_over = 0u;" : ""}
      ${writes && !sharedStores ? "pm_logged = 0u;" : ""}
      ${features.replayRecords > 0 ? "pm_replayed = 0u;" : ""}
      ${shape.resetPrivate}`;
}

/** The start of an entry point whose invocations run each for itself, up to where those that have something to do begin. */
export function aloneHead(shape: EntryShape): string {
  return `${header(shape)}
  let pm_p = pm_hw.x + pm_hw.y * pm_hw_grid.x;
  if (pm_p >= ${headerWord(Control.Count)}) { return; }
  pm_lane = pm_lidx;
  pm_workgroup = pm_logical(pm_p);
  let pm_bit = (pm_workgroup - ${headerWord(Control.WindowFirst)}) * ${shape.invocations}u + pm_lidx;
  let pm_bits = ${headerWord(Control.DoneBase)} + (pm_bit >> 5u);
  let pm_mask = 1u << (pm_bit & 31u);
  let pm_waits = (atomicLoad(&pm_ctl[pm_bits]) & pm_mask) != 0u;
  // In its first round a workgroup runs as a whole.
  var pm_open = pm_waits | (${headerWord(Control.Mode)} == 0u);
  if (pm_open & (pm_lidx >= ${headerWord(Control.LaneFirst)}) & (pm_lidx < ${headerWord(Control.LaneEnd)})) {
    ${aloneIds(shape)}`;
}

/** Statements that find the ids of an invocation of `pm_workgroup`, at `pm_lid` in it. */
export function aloneIds(shape: EntryShape): string {
  return `let pm_grid = ${GRID};
    let pm_id = ${POINT};
    ${gid(shape)}`;
}

/**
 * Each invocation for itself: those that must run again set their bit, and the compaction after the kernel finds out which
 * workgroups that leaves open. No workgroup memory and no barrier, and nothing is written when all goes well.
 */
function invocationEntry(shape: EntryShape, features: KernelFeatures, quick?: { readonly last: string }): string {
  const { replayRecords } = features;
  const begin = replayRecords > 0 ? "pm_replay_begin(pm_bit);" : "";
  const end = replayRecords > 0 ? "if (pm_hurt == 0u) { pm_replay_end(); }" : "";
  const run = probes(features)
    ? `loop {
      ${call(shape)}
      ${end}
      ${onceMore(shape, features)}
    }`
    : `${call(shape)}
    ${end}`;
  return `
${aloneHead(shape)}
    ${quick ? "" : "pm_begin();"}
    ${begin}
    ${run}
    ${quick?.last ?? ""}
    if (pm_hurt == 0u) {
      pm_commit_log();
      pm_open = false;
    } ${quick ? "" : "else if (pm_fault == 0u) { pm_report(); }"}
  }
  if (pm_open != pm_waits) {
    atomicXor(&pm_ctl[pm_bits], pm_mask);
    if (!pm_open) { atomicAdd(&pm_ctl[${Control.DoneInvocations}], 1u); }
  }
}
`;
}

/** The workgroup as one: what its invocations tell each other makes the fault of one the fault of all. */
function workgroupEntry(shape: EntryShape, features: KernelFeatures): string {
  const { replayRecords, replayOrder, sharedStores, writes } = features;
  const slot = `(pm_which - ${headerWord(Control.WindowFirst)}) * ${shape.invocations}u + pm_lidx`;
  const begin = [replayRecords > 0 ? `pm_replay_begin(${slot});` : "", replayOrder ? BEGIN_IN_ORDER : ""].join("\n  ");
  const end =
    replayRecords > 0
      ? `if (pm_hurt == 0u && (atomicLoad(&pm_wg_fault) & ${TAINTED}u) == 0u) { pm_replay_end(); }`
      : "";
  const over = probes(features)
    ? `if (pm_hurt == 0u && ${unwritten(features)} != 0u) {
      ${dieIfMixed(features)}
      atomicOr(&pm_wg_fault, ${WgFlag.Overflow}u);
    }`
    : "";
  const again = probes(features)
    ? `if (pm_verdict != ${WgFlag.Overflow}u || pm_second) { break; }
    pm_second = true;
    if (pm_lidx == 0u) {
      atomicStore(&pm_wg_fault, 0u);
      ${shape.resetWorkgroup}
    }
    ${rewind(shape, features)}
    ${writes && sharedStores ? `pm_forget_shared(${shape.invocations}u);` : ""}
    ${replayOrder ? AGAIN_IN_ORDER : ""}
    workgroupBarrier();`
    : "break;";
  // A second run has barriers, so all have to know that there is one.
  const verdict = probes(features)
    ? `if (pm_lidx == 0u) { pm_wg_verdict = atomicLoad(&pm_wg_fault); }
    pm_verdict = workgroupUniformLoad(&pm_wg_verdict);`
    : "pm_verdict = atomicLoad(&pm_wg_fault);";
  return `
var<workgroup> pm_wg_id: u32;
var<workgroup> pm_wg_verdict: u32;
${replayOrder ? `const pm_group = ${shape.invocations}u;` : ""}
${header(shape)}
  let pm_p = pm_hw.x + pm_hw.y * pm_hw_grid.x;
  if (pm_p >= ${headerWord(Control.Count)}) { return; }
  // Barriers cost more than most kernels' own work between two of them.
  var pm_which = ${headerWord(Control.First)} + pm_p;
  if (${headerWord(Control.Mode)} != 0u) {
    if (pm_lidx == 0u) { pm_wg_id = pm_logical(pm_p); }
    pm_which = workgroupUniformLoad(&pm_wg_id);
  }
  pm_workgroup = pm_which;
  pm_lane = pm_lidx;
  pm_begin();
  ${begin}
  let pm_grid = ${GRID};
  let pm_id = ${POINT.replaceAll("pm_workgroup", "pm_which")};
  ${gid(shape)}
  var pm_verdict = 0u;
  var pm_second = false;
  loop {
    ${call(shape)}
    ${end}
    ${over}
    if (pm_fault != 0u) {
      atomicOr(&pm_wg_fault, ${WgFlag.Fault}u);
    } else if (pm_code != 0u) {
      atomicOr(&pm_wg_fault, ${WgFlag.Dead}u);
    }
    workgroupBarrier();
    ${verdict}
    ${again}
  }
  if ((pm_verdict & ${WgFlag.Fault}u) != 0u) {
    if (pm_lidx == 0u) { pm_append(pm_workgroup); }
    return;
  }
  if ((pm_verdict & ${WgFlag.Dead}u) != 0u) {
    if (pm_code != 0u) { pm_report(); }
    if (pm_lidx == 0u) { pm_append(pm_workgroup); }
    return;
  }
  ${sharedStores ? `pm_commit_shared(${shape.invocations}u);` : "pm_commit_log();"}
  if (pm_lidx == 0u) { atomicAdd(&pm_ctl[${Control.Completed}], 1u); }
}
`;
}
