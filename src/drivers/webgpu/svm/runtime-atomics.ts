/** Atomics of the checked pipeline: kept back with the stores, or applied where they stand and recorded. */
import { Control, Fatal, FaultBit, headerWord, ORDERED_RECORD, REPLAY_RECORD } from "./control-layout.ts";
import { type KernelFeatures, Op } from "./kernel-features.ts";
import { APPLY_IN_ORDER, inOrderWgsl } from "./replay-order.ts";
import type { FaultNotes } from "./runtime-faults.ts";
import { SHARED_PENDING } from "./runtime-shared.ts";
import { TAINTED, WgFlag } from "./workgroup-flags.ts";

/** Atomics whose results nobody uses: entries of the log. A plain load sees them as if they were applied. */
export function loggedWgsl(features: KernelFeatures, notes: FaultNotes): string {
  if (!features.writes) {
    return "fn pm_rmw(a: u32, op: u32, v: u32, c: u32) -> u32 { return pm_load_u32(a); }";
  }
  return `
fn pm_rmw(a: u32, op: u32, v: u32, c: u32) -> u32 {
  if (op == ${Op.Load}u) { return pm_load_u32(a); }
  let e = pm_entry_of(a);
  let ok = pm_can_store(pm_word(a), e);
  ${notes.access("a", "e", `${FaultBit.Write}u`, "ok")}
  if (pm_hurt == 0u) { pm_put_op(a, e, op, v); }
  return 0u;
}
`;
}

/** The log of atomics that were applied where they stand: a later run of the same invocation gets the same results. */
export function replayWgsl({ collective, replayOrder }: KernelFeatures): string {
  const tainted = collective ? `pm_hurt != 0u || (atomicLoad(&pm_wg_fault) & ${TAINTED}u) != 0u` : "pm_hurt != 0u";
  return `
var<private> pm_replayed: u32;
var<private> pm_recorded: u32;
var<private> pm_slot: u32;
var<private> pm_result: u32;
fn pm_record_at(record: u32, word: u32) -> u32 {
  return pm_slot + (1u + record * ${replayOrder ? ORDERED_RECORD : REPLAY_RECORD}u + word) * ${headerWord(Control.ReplayStride)};
}
fn pm_replay_begin(invocation: u32) {
  pm_slot = ${headerWord(Control.ReplayBase)} + invocation;
  pm_recorded = atomicLoad(&pm_ctl[pm_slot]);
  pm_replayed = 0u;
}
fn pm_replay_end() {
  if (pm_replayed != pm_recorded) { pm_die(${Fatal.NotRepeatable}u, 0u); }
}
${replayOrder ? inOrderWgsl : beforeWgsl}
// Whether an atomic has its result already, or cannot have one; if not it is to be applied now, and recorded.
fn pm_replay(a: u32, key: u32) -> bool {
  pm_result = 0u;
  if (${tainted}) { return true; }
  if (pm_replayed < pm_recorded) {
    if (atomicLoad(&pm_ctl[pm_record_at(pm_replayed, 0u)]) != a || atomicLoad(&pm_ctl[pm_record_at(pm_replayed, 1u)]) != key) {
      pm_die(${Fatal.NotRepeatable}u, a);
      return true;
    }
    pm_result = atomicLoad(&pm_ctl[pm_record_at(pm_replayed, 2u)]);
    pm_replayed++;
    ${replayOrder ? "pm_show_replayed();" : ""}
    return true;
  }
  if (pm_committing != 0u) {
    pm_die(${Fatal.NotRepeatable}u, a);
    return true;
  }
  if (pm_recorded >= ${headerWord(Control.ReplayCapacity)}) {
    atomicMax(&pm_ctl[${Control.ReplayNeeded}], pm_recorded + 1u);
    pm_hurt = 1u;
    pm_fault = 1u;
    pm_fuel = 1u;
    ${collective ? `atomicOr(&pm_wg_fault, ${WgFlag.Fault}u);` : ""}
    return true;
  }
  return false;
}
fn pm_record(a: u32, key: u32, old: u32) {
  atomicStore(&pm_ctl[pm_record_at(pm_recorded, 0u)], a);
  atomicStore(&pm_ctl[pm_record_at(pm_recorded, 1u)], key);
  atomicStore(&pm_ctl[pm_record_at(pm_recorded, 2u)], old);
  ${replayOrder ? "pm_record_order();" : ""}
  pm_recorded++;
  pm_replayed = pm_recorded;
  atomicStore(&pm_ctl[pm_slot], pm_recorded);
}
`;
}

const beforeWgsl = `
// A word that this invocation has changed in an earlier run, as it was before: what the run saw that changed it.
fn pm_before(a: u32, there: u32) -> u32 {
  for (var r = pm_replayed; r < pm_recorded; r++) {
    if (atomicLoad(&pm_ctl[pm_record_at(r, 0u)]) == a) { return atomicLoad(&pm_ctl[pm_record_at(r, 2u)]); }
  }
  return there;
}`;

/** Atomics whose results matter: applied where they stand, once. */
export function immediateWgsl(features: KernelFeatures, notes: FaultNotes): string {
  const { collective, logCanOverflow, sharedStores, replayOrder } = features;
  const tainted = collective ? `pm_hurt != 0u || (atomicLoad(&pm_wg_fault) & ${TAINTED}u) != 0u` : "pm_hurt != 0u";
  const pending = `
  // Its own store waits in the log: the two will be applied as one.
  for (var i = pm_logged; i > 0u; i--) {
    if (pm_log_addr[i - 1u] == a) {
      let old = pm_log_value[i - 1u];
      pm_log_value[i - 1u] = pm_apply(op, old, v, c);
      ${logCanOverflow ? "pm_mixed = 1u;" : ""}
      return old;
    }
  }
  ${
    logCanOverflow
      ? `if (pm_over != 0u && a >= pm_low_store && a <= pm_high_store) {
    pm_die(${Fatal.StoreLogFull}u, a);
    return 0u;
  }`
      : ""
  }`;
  return `
${logCanOverflow ? "var<private> pm_mixed: u32;" : ""}
fn pm_rmw(a: u32, op: u32, v: u32, c: u32) -> u32 {
  let e = pm_entry_of(a);
  let loads = op == ${Op.Load}u;
  let ok = select(pm_can_store(pm_word(a), e), pm_can_load(pm_word(a), e), loads);
  ${notes.access("a", "e", `select(${FaultBit.Write}u, ${FaultBit.Read}u, loads)`, "ok")}
  if (${tainted}) { return 0u; }
  ${sharedStores ? SHARED_PENDING : pending}
  let key = (v * 0x9e3779b1u) ^ (c * 0x85ebca77u) ^ (op + 1u);
  if (pm_replay(a, key)) { return pm_result; }
  ${replayOrder ? APPLY_IN_ORDER : "let old = pm_do(pm_at(a, e), op, v, c);"}
  pm_record(a, key, old);
  return old;
}
`;
}
