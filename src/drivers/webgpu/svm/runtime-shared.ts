/**
 * The store log of kernels with `storageBarrier`, whose stores the workgroup's other invocations read: one hash table in
 * workgroup memory.
 */
import { Fatal } from "./control-layout.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import { poolWords } from "./runtime-common.ts";

/** Words of a table in workgroup memory, of which every adapter has 16 KiB. */
const MOST_SLOTS = 1024;

export function sharedStoresWgsl(features: KernelFeatures, slots = MOST_SLOTS): string {
  const { write } = poolWords(features);
  return `
// Address 0 is never mapped: it marks a free slot.
var<workgroup> pm_wg_addr: array<atomic<u32>, ${slots}>;
var<workgroup> pm_wg_value: array<atomic<u32>, ${slots}>;
var<workgroup> pm_wg_used: atomic<u32>;
fn pm_slot_of(a: u32, insert: bool) -> u32 {
  var at = ((a * 0x9e3779b1u) >> 16u) & ${slots - 1}u;
  for (var tries = 0u; tries < ${slots}u; tries++) {
    let there = atomicLoad(&pm_wg_addr[at]);
    if (there == a) { return at; }
    if (there == 0u) {
      if (!insert) { return ${slots}u; }
      let r = atomicCompareExchangeWeak(&pm_wg_addr[at], 0u, a);
      if (r.exchanged || r.old_value == a) { return at; }
      if (r.old_value == 0u) { continue; }
    }
    at = (at + 1u) & ${slots - 1}u;
  }
  return ${slots}u;
}
fn pm_put(a: u32, e: u32, v: u32) {
  let at = pm_slot_of(a, true);
  if (at >= ${slots}u) {
    pm_die(${Fatal.StoreLogFull}u, a);
    return;
  }
  atomicStore(&pm_wg_value[at], v);
  atomicStore(&pm_wg_used, 1u);
}
fn pm_own(a: u32, there: u32) -> u32 {
  let at = pm_slot_of(a, false);
  var v = there;
  ${features.replayRecords > 0 ? "v = pm_before(a, v);" : ""}
  if (at < ${slots}u) { v = atomicLoad(&pm_wg_value[at]); }
  return v;
}
${
  features.atomics === "none"
    ? ""
    : `
fn pm_own_pending(a: u32) -> bool { return pm_slot_of(a, false) < ${slots}u; }`
}
fn pm_forget_shared(step: u32) {
  for (var at = pm_lane; at < ${slots}u; at += step) { atomicStore(&pm_wg_addr[at], 0u); }
  atomicStore(&pm_wg_used, 0u);
}
// Each invocation takes its share of the slots.
fn pm_commit_shared(step: u32) {
  for (var at = pm_lane; at < ${slots}u; at += step) {
    let a = atomicLoad(&pm_wg_addr[at]);
    if (a != 0u) {
      ${write("pm_at(a, pm_entry_of(a))", "atomicLoad(&pm_wg_value[at])")}
    }
  }
}
`;
}

/** An atomic on a word that waits in the table cannot be put in order with it. */
export const SHARED_PENDING = `
  if (pm_own_pending(a)) {
    pm_die(${Fatal.StoreLogFull}u, a);
    return 0u;
  }`;
