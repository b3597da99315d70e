/**
 * The functions when memory may be missing: every access is checked, faults are noted for the host, and stores wait in a
 * log until the whole run is known to have had none.
 *
 *     pm_hurt    this run is lost: it goes on only to find more faults
 *     pm_fault   it is lost because of a fault, so it will be run again
 *     pm_code    it is lost because of a fatal access
 *
 * All of it is inlined at each access, and some devices run both sides of every branch: short is fast here.
 */
import { Control, DEFAULT_FUEL, Fatal, FaultBit, headerWord } from "./control-layout.ts";
import { type KernelFeatures, Op } from "./kernel-features.ts";
import { DEVICE_PAGE_WORDS, SvmPte } from "./page-entry.ts";
import { immediateWgsl, loggedWgsl, replayWgsl } from "./runtime-atomics.ts";
import { applyWgsl, commonWgsl, doAtomicWgsl, poolWords, typedWgsl, usedOps } from "./runtime-common.ts";
import { reportWgsl } from "./runtime-resident.ts";
import { sharedStoresWgsl } from "./runtime-shared.ts";
import { TAINTED, WgFlag } from "./workgroup-flags.ts";

const READ = SvmPte.Valid;
const WRITE = SvmPte.Valid | SvmPte.Write;
/** Notes of misses and accessed pages that an invocation keeps; a power of two. */
const RING = 32;

/** `resuming`: an invocation asks for a limited number of pages, in the order in which it missed them. */
export function checkedRuntime(features: KernelFeatures, group: number, resuming = false): string {
  const parts = [commonWgsl(features, group), faultWgsl(features, resuming), accessWgsl(features), reportWgsl];
  if (features.writes) {
    parts.push(features.sharedStores ? sharedStoresWgsl(features) : logWgsl(features));
  } else {
    parts.push("fn pm_commit_log() { }");
  }
  if (features.atomics !== "none") {
    parts.push(applyWgsl(usedOps(features.functions)), doAtomicWgsl(usedOps(features.functions)));
  }
  if (features.replayRecords > 0) {
    parts.push(replayWgsl(features));
  }
  if (features.atomics === "immediate") {
    parts.push(immediateWgsl(features));
  } else if (features.atomics === "logged") {
    parts.push(loggedWgsl(features));
  }
  parts.push(typedWgsl(features));
  return parts.join("\n");
}

/**
 * Misses, fatal accesses, and the fuel that ends loops after them. An access only notes in a ring what it met: this code
 * stands at each of them. What the notes mean is found out once, at the end of the run.
 */
function faultWgsl(features: KernelFeatures, resuming: boolean): string {
  const { collective } = features;
  const first = resuming ? RESUMING_FIRST : { declare: "", note: "", limit: "" };
  const tell = collective ? `atomicOr(&pm_wg_fault, ${WgFlag.Hurt}u);` : "";
  return `
// 0 or 1: what a turn of a loop takes from the fuel.
var<private> pm_hurt: u32;
var<private> pm_fault: u32;
// At 1, loops end after a miss.
var<private> pm_fuel: u32 = 1u;
var<private> pm_full: u32;
var<private> pm_committing: u32;
// Writes to variables of the kernel's own wait for a second run.
var<private> pm_again: u32;
// The first miss, until it is known whether it is a fault.
var<private> pm_how: u32;
var<private> pm_ring: array<u32, ${RING}>;
var<private> pm_events: u32;
var<private> pm_last: u32;
var<private> pm_last_but_one: u32;
${collective ? "var<workgroup> pm_wg_fault: atomic<u32>;\nvar<workgroup> pm_wg_stop: atomic<u32>;\nvar<workgroup> pm_wg_stopped: u32;" : ""}
fn pm_begin() {
  let fuel = ${headerWord(Control.Fuel)};
  pm_full = max(1u, select(fuel, ${DEFAULT_FUEL}u, fuel == 0u));
  pm_fuel = pm_full;
}
fn pm_event(a: u32, how: u32) {
  let key = ((a >> 12u) << ${FaultBit.PageShift}u) | how;
  let first = (how != 0u) & (pm_hurt == 0u);
  // From now on misses are what matters.
  pm_events = select(pm_events, 0u, first);
  // What comes after a miss can be its consequence.
  pm_how = select(pm_how, how, first);
  pm_addr = select(pm_addr, a, first);
  pm_hurt |= min(how, 1u);
  let again = ((key == pm_last) | (key == pm_last_but_one)) & !first;
  pm_last_but_one = select(pm_last, pm_last_but_one, key == pm_last);
  pm_last = key;
  if (!again) {
    pm_ring[pm_events % ${RING}u] = key;
    pm_events++;
    // Another page is progress and worth more time, as long as there is room to note it.
    pm_fuel = select(pm_full, 1u, (pm_events >= ${RING}u) & (pm_hurt != 0u));
  }
  ${tell === "" ? "" : `if (how != 0u) { ${tell} }`}
}
fn pm_die(code: u32, a: u32) {
  if (pm_hurt == 0u) {
    pm_hurt = 1u;
    pm_fuel = 1u;
    pm_code = code;
    pm_addr = a;
    ${tell}
  }
}
fn pm_set(base: u32, bit: u32) {
  atomicOr(&pm_ctl[base + (bit >> 5u)], 1u << (bit & 31u));
}
fn pm_settle() {
  ${first.declare}
  if (pm_how != 0u) {
    let e = pm_entry_of(pm_addr);
    let writes = pm_how == ${FaultBit.Write}u;
    let mapped = pm_reach(pm_word(pm_addr), e, ${SvmPte.Mapped}u);
    let locked = writes & ((e & ${SvmPte.MappedWrite}u) == 0u);
    let unmapped = select(${Fatal.ReadUnmapped}u, ${Fatal.WriteUnmapped}u, writes);
    pm_code = select(select(pm_committing * ${Fatal.NotRepeatable}u, ${Fatal.WriteReadOnly}u, locked), unmapped, !mapped);
    pm_fault = u32(pm_code == 0u);
    ${first.note}
    pm_how = 0u;
  }
  for (var i = 0u; i < min(pm_events, ${RING}u); i++) {
    let key = pm_ring[i];
    let page = key >> ${FaultBit.PageShift}u;
    let how = key & 3u;
    ${first.limit}
    let writes = how == ${FaultBit.Write}u;
    let e = pm_entry_of(page << 12u);
    let needs = select(${SvmPte.Mapped}u, ${SvmPte.Mapped | SvmPte.MappedWrite}u, writes);
    let there = select(${READ}u, ${WRITE}u, writes);
    if ((how == 0u) | ((pm_code == 0u) & ((e & needs) == needs) & ((e & there) != there))) {
      let faults = select(${headerWord(Control.ReadBits)}, ${headerWord(Control.WriteBits)}, writes);
      pm_set(select(faults, ${headerWord(Control.AccessedBits)}, how == 0u), page);
    }
  }
  pm_events = 0u;
}
${collective ? collectiveStop : ""}
`;
}

/** The first miss is asked for whatever the ring has room for; what came after it, as far as there is room for it. */
const RESUMING_FIRST = {
  declare: "var left = 0u;\n  var first = 0u;",
  note: `first = ((pm_addr >> 12u) << ${FaultBit.PageShift}u) | pm_how;
    if (pm_code == 0u) {
      left = max(1u, ${headerWord(Control.MostFaults)}) - 1u;
      pm_set(select(${headerWord(Control.ReadBits)}, ${headerWord(Control.WriteBits)}, writes), pm_addr >> 12u);
    }`,
  limit: `if (how != 0u) {
      if ((key == first) | (left == 0u)) { continue; }
      left--;
    }`,
};

/** Statements at the start of a loop's body; without a call, for what they cost in each turn. */
export function loopCheck(features: KernelFeatures, together: boolean): string {
  if (together) {
    return " if (pm_stop_all()) { break; } ";
  }
  // What another invocation brought into workgroup memory after its fault can keep a loop going here.
  const taint = features.collective ? `pm_hurt |= min(1u, atomicLoad(&pm_wg_fault) & ${TAINTED}u); ` : "";
  return ` ${taint}if (pm_hurt >= pm_fuel) { break; } pm_fuel -= pm_hurt; `;
}

/** For loops with barriers: all invocations leave together. */
const collectiveStop = `
fn pm_stop_all() -> bool {
  pm_hurt |= min(1u, atomicLoad(&pm_wg_fault) & ${TAINTED}u);
  if (pm_hurt >= pm_fuel) { atomicStore(&pm_wg_stop, 1u); } else { pm_fuel -= pm_hurt; }
  workgroupBarrier();
  if (pm_lane == 0u) { pm_wg_stopped = atomicLoad(&pm_wg_stop); }
  return workgroupUniformLoad(&pm_wg_stopped) != 0u;
}
`;

function accessWgsl(features: KernelFeatures): string {
  const { read } = poolWords(features);
  const four = (make: (k: number) => string) => [0, 1, 2, 3].map(make).join(", ");
  const own = ownWords(features);
  const seen =
    own === undefined
      ? "fn pm_seen(a: u32, v: u32) -> u32 { return v; }"
      : `
fn pm_seen(a: u32, v: u32) -> u32 {
  if (${own}) { return pm_own(a, v); }
  return v;
}`;
  const seen4 = own === undefined ? "" : `if (${own}) { return pm_load_each(a); }`;
  return `
${seen}
fn pm_load_u32(a: u32) -> u32 {
  let e = pm_entry_of(a);
  let ok = pm_reach(pm_word(a), e, ${READ}u);
  if (!ok | ((e & ${SvmPte.Track}u) != 0u)) { pm_event(a, select(${FaultBit.Read}u, 0u, ok)); }
  return pm_seen(a, select(0u, ${read("select(0u, pm_at(a, e), ok)")}, ok));
}
fn pm_load_each(a: u32) -> vec4u {
  var v: vec4u;
  for (var k = 0u; k < 4u; k++) { v[k] = pm_load_u32(a + k); }
  return v;
}
fn pm_load_vec4u(a: u32) -> vec4u {
  let e = pm_entry_of(a);
  if (!pm_reach(pm_word(a) + 3u, e, ${READ}u)) { return pm_load_each(a); }
  ${seen4}
  if ((e & ${SvmPte.Track}u) != 0u) { pm_event(a, 0u); }
  let at = pm_at(a, e);
  return vec4u(${four((k) => read(`at + ${k}u`))});
}
// A span of a page that is missing reads zeros, and goes as far as if it were there.
fn pm_span(a: u32, words: u32) -> PmSpan {
  let e = pm_entry_of(a);
  let there = pm_reach(pm_word(a), e, ${READ}u);
  if ((words != 0u) & (!there | ((e & ${SvmPte.Track}u) != 0u))) { pm_event(a, select(${FaultBit.Read}u, 0u, there)); }
  let end = select(${DEVICE_PAGE_WORDS}u, pm_span_end(e), pm_reach(pm_word(a), e, ${SvmPte.Mapped}u));
  return PmSpan(a, min(words, end - pm_word(a)), select(pm_word(a), pm_at(a, e), there), select(0u, e, there));
}
fn pm_span_load_u32(s: PmSpan, i: u32) -> u32 {
  if (i >= s.words) {
    pm_die(${Fatal.SpanIndex}u, s.addr);
    return 0u;
  }
  return pm_seen(s.addr + i, select(0u, ${read("s.base + i")}, s.entry != 0u));
}
fn pm_span_load_vec4u(s: PmSpan, i: u32) -> vec4u {
  if (i >= s.words || s.words - i < 4u) {
    pm_die(${Fatal.SpanIndex}u, s.addr);
    return vec4u();
  }
  let a = s.addr + i;
  ${seen4}
  let at = s.base + i;
  return select(vec4u(), vec4u(${four((k) => read(`at + ${k}u`))}), s.entry != 0u);
}
${features.writes ? storeWgsl : ""}
`;
}

const storeWgsl = `
fn pm_store_u32(a: u32, v: u32) {
  let e = pm_entry_of(a);
  let ok = pm_reach(pm_word(a), e, ${WRITE}u);
  if (!ok | ((e & ${SvmPte.Track}u) != 0u)) { pm_event(a, select(${FaultBit.Write}u, 0u, ok)); }
  if (pm_hurt == 0u) { pm_put(a, e, v); }
}
fn pm_store_vec4u(a: u32, v: vec4u) {
  for (var k = 0u; k < 4u; k++) { pm_store_u32(a + k, v[k]); }
}
fn pm_span_store_u32(s: PmSpan, i: u32, v: u32) {
  if (i >= s.words) {
    pm_die(${Fatal.SpanIndex}u, s.addr);
    return;
  }
  pm_store_u32(s.addr + i, v);
}
fn pm_span_store_vec4u(s: PmSpan, i: u32, v: vec4u) {
  if (i >= s.words || s.words - i < 4u) {
    pm_die(${Fatal.SpanIndex}u, s.addr);
    return;
  }
  pm_store_vec4u(s.addr + i, v);
}
`;

/** When a load may be of a word that this run has written; undefined when it cannot be. */
function ownWords(features: KernelFeatures): string | undefined {
  if (!features.writes) {
    return undefined;
  }
  const stored = features.sharedStores ? "atomicLoad(&pm_wg_used) != 0u" : "pm_logged != 0u";
  return features.replayRecords > 0 ? `${stored} || pm_replayed < pm_recorded` : stored;
}

/** The private store log: address, value and, with atomics in it, what to do. */
function logWgsl(features: KernelFeatures): string {
  const { logEntries, logCanOverflow, storesInLoops, atomics } = features;
  const { write } = poolWords(features);
  const ops = atomics === "logged";
  const overflow = logCanOverflow
    ? `
  if (pm_logged >= ${logEntries}u) {
    // Too many: when this run has no fault, another one stores directly.
    pm_low_store = select(min(pm_low_store, a), a, pm_over == 0u);
    pm_high_store = max(pm_high_store, a);
    pm_over = 1u;
    return;
  }`
    : "";
  const direct = logCanOverflow
    ? `if (pm_committing != 0u) {
    ${ops ? "pm_do(pm_at(a, e), op, v, 0u);" : write("pm_at(a, e)", "v")}
    return;
  }`
    : "";
  const again = storesInLoops
    ? `
  for (var i = pm_logged; i > 0u; i--) {
    if (pm_log_addr[i - 1u] == a) {
      ${
        ops
          ? `let was = pm_log_op[i - 1u];
      if (op == ${Op.Store}u) {
        pm_log_op[i - 1u] = op;
        pm_log_value[i - 1u] = v;
        return;
      }
      if (was == ${Op.Store}u || was == op) {
        pm_log_value[i - 1u] = pm_apply(op, pm_log_value[i - 1u], v, 0u);
        return;
      }
      break;`
          : `pm_log_value[i - 1u] = v;
      return;`
      }
    }
  }`
    : "";
  const put = ops ? "fn pm_put_op(a: u32, e: u32, op: u32, v: u32) {" : "fn pm_put(a: u32, e: u32, v: u32) {";
  return `
var<private> pm_logged: u32;
var<private> pm_log_addr: array<u32, ${logEntries}>;
var<private> pm_log_value: array<u32, ${logEntries}>;
${ops ? `var<private> pm_log_op: array<u32, ${logEntries}>;` : ""}
${logCanOverflow ? "var<private> pm_over: u32;\nvar<private> pm_low_store: u32;\nvar<private> pm_high_store: u32;" : ""}
${ops ? `fn pm_put(a: u32, e: u32, v: u32) { pm_put_op(a, e, ${Op.Store}u, v); }` : ""}
${put}
  ${direct}${again}${overflow}
  pm_log_addr[pm_logged] = a;
  pm_log_value[pm_logged] = v;
  ${ops ? "pm_log_op[pm_logged] = op;" : ""}
  pm_logged++;
}
// The word as this run has left it.
fn pm_own(a: u32, there: u32) -> u32 {
  var v = there;
  ${features.replayRecords > 0 ? "v = pm_before(a, v);" : ""}
  ${logCanOverflow ? `if (pm_over != 0u && a >= pm_low_store && a <= pm_high_store) { pm_die(${Fatal.StoreLogFull}u, a); }` : ""}
  for (var i = 0u; i < pm_logged; i++) {
    if (pm_log_addr[i] == a) { v = ${ops ? "pm_apply(pm_log_op[i], v, pm_log_value[i], 0u)" : "pm_log_value[i]"}; }
  }
  return v;
}
fn pm_commit_log() {
  for (var i = 0u; i < pm_logged; i++) {
    let a = pm_log_addr[i];
    let at = pm_at(a, pm_entry_of(a));
    ${ops ? "pm_do(at, pm_log_op[i], pm_log_value[i], 0u);" : write("at", "pm_log_value[i]")}
  }
  pm_logged = 0u;
}
`;
}
