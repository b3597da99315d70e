/**
 * The order of a workgroup's atomics, for when it runs again. A load must find no change that the run has not come to yet, whoever
 * made it in an earlier run (I-GPU-11): of those the first one's record has the word as it was.
 *
 * Which of two changes came first the words do not tell. So each atomic looks at the word, takes a number, and only then changes
 * it: what the lowest number has seen was there before any of them. A run that fails ends everybody's atomics at the next barrier,
 * so numbers follow barriers in later runs, too.
 */
import { Control, headerWord } from "./control-layout.ts";

/** Lists of records, by address. */
const BUCKETS = 128;

/** True when a load may be of a word that the workgroup has changed. */
export const SOME_IN_ORDER = "atomicLoad(&pm_wg_numbers) != 0u";

/** Statements that apply an atomic of `pm_rmw`. Each needs the result of the one before, so that no device reorders them. */
export const APPLY_IN_ORDER = `let at = pm_at(a, e);
  pm_was = atomicLoad(&pm_pool[at]);
  pm_number = 1u + atomicAdd(&pm_wg_numbers, 1u + (pm_was & ${headerWord(Control.Zero)}));
  let old = pm_do(at, op, v + (pm_number & ${headerWord(Control.Zero)}), c);
  pm_number = select(pm_number, 0u, loads);`;

/** Statements when a run begins. */
export const BEGIN_IN_ORDER = `atomicAdd(&pm_wg_numbers, pm_recorded);
  pm_list_records();
  storageBarrier();
  workgroupBarrier();`;

/** Statements before a second run in one round, before a barrier. */
export const AGAIN_IN_ORDER = `pm_show_replayed();
    pm_list_records();
    storageBarrier();`;

/** `pm_before(a, there)`, and what keeps the records that it looks through. `pm_group` are the invocations of a workgroup. */
export const inOrderWgsl = `
var<workgroup> pm_wg_replayed: array<atomic<u32>, pm_group>;
var<workgroup> pm_wg_lists: array<atomic<u32>, ${BUCKETS}>;
var<workgroup> pm_wg_numbers: atomic<u32>;
var<private> pm_listed: u32;
var<private> pm_number: u32;
var<private> pm_was: u32;
fn pm_list_of(a: u32) -> u32 { return (a * 0x9e3779b1u) >> ${32 - Math.log2(BUCKETS)}u; }
fn pm_show_replayed() { atomicStore(&pm_wg_replayed[pm_lane], pm_replayed); }
fn pm_record_order() {
  atomicStore(&pm_ctl[pm_record_at(pm_recorded, 3u)], pm_number);
  atomicStore(&pm_ctl[pm_record_at(pm_recorded, 4u)], pm_was);
  pm_number = 0u;
}
// Those that changed a word of an address. What is recorded in this run, no load of this run may overlook.
fn pm_list_records() {
  for (; pm_listed < pm_recorded; pm_listed++) {
    if (atomicLoad(&pm_ctl[pm_record_at(pm_listed, 3u)]) != 0u) {
      let list = pm_list_of(atomicLoad(&pm_ctl[pm_record_at(pm_listed, 0u)]));
      let next = atomicExchange(&pm_wg_lists[list], 1u + pm_listed * pm_group + pm_lane);
      atomicStore(&pm_ctl[pm_record_at(pm_listed, 5u)], next);
    }
  }
}
// A word that this workgroup has changed in an earlier run, as it was before all that this run has not come to yet.
fn pm_before(a: u32, there: u32) -> u32 {
  var v = there;
  var first = 0xffffffffu;
  var next = atomicLoad(&pm_wg_lists[pm_list_of(a)]);
  while (next != 0u) {
    let lane = (next - 1u) % pm_group;
    let record = (next - 1u) / pm_group;
    let at = pm_record_at(record, 0u) + lane - pm_lane;
    let step = ${headerWord(Control.ReplayStride)};
    next = atomicLoad(&pm_ctl[at + 5u * step]);
    if (atomicLoad(&pm_ctl[at]) == a && record >= atomicLoad(&pm_wg_replayed[lane])) {
      let number = atomicLoad(&pm_ctl[at + 3u * step]);
      if (number < first) {
        first = number;
        v = atomicLoad(&pm_ctl[at + 4u * step]);
      }
    }
  }
  return v;
}`;
