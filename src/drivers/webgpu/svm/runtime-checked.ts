/**
 * The functions when memory may be missing: every access is checked, faults are noted for the host, and stores wait in a
 * log until the whole run is known to have had none.
 *
 * All of it is inlined at each access, and some devices run both sides of every branch: short is fast here.
 */
import { Fatal, FaultBit } from "./control-layout.ts";
import { type KernelFeatures, Op } from "./kernel-features.ts";
import { DEVICE_PAGE_WORDS } from "./page-entry.ts";
import { SOME_IN_ORDER } from "./replay-order.ts";
import { immediateWgsl, loggedWgsl, replayWgsl } from "./runtime-atomics.ts";
import { applyWgsl, commonWgsl, doAtomicWgsl, poolWords, typedWgsl, usedOps } from "./runtime-common.ts";
import { type FaultNotes, guardedNotes, quickNotes, thoroughNotes } from "./runtime-faults.ts";
import { reportWgsl } from "./runtime-resident.ts";
import { sharedStoresWgsl } from "./runtime-shared.ts";

/** For runs that find out what is missing. `resuming`: an invocation asks for a limited number of pages. */
export function checkedRuntime(features: KernelFeatures, group: number, resuming = false): string {
  return [runtime(features, group, thoroughNotes(features, resuming)), reportWgsl].join("\n");
}

/** Whether there is a quick version: one that an invocation that it does not suit leaves to the other. */
export function canBeQuick({ collective, replayRecords, logCanOverflow, defersBound }: KernelFeatures): boolean {
  return !collective && replayRecords === 0 && !logCanOverflow && !defersBound;
}

/** For runs that are likely to miss nothing, or little. */
export function quickRuntime(features: KernelFeatures, group: number): string {
  return runtime(features, group, quickNotes, storesDirectly(features));
}

/** For runs that only find out what they miss: what they store stays in their log. */
export function scoutRuntime(features: KernelFeatures, group: number): string {
  return runtime(features, group, quickNotes);
}

/** For runs over memory that can all be read, as far as is known, if not all be written. */
export function guardedRuntime(features: KernelFeatures, group: number): string {
  return runtime(features, group, guardedNotes, storesDirectly(features));
}

/** Whether a store can be made where it stands: when it has not failed, and nothing before it has, nothing will. */
function storesDirectly(features: KernelFeatures): boolean {
  return canBeQuick(features) && features.atomics === "none" && features.endsWithStore;
}

function runtime(features: KernelFeatures, group: number, notes: FaultNotes, direct = false): string {
  const parts = [commonWgsl(features, group), notes.wgsl, accessWgsl(features, notes, direct)];
  if (features.writes) {
    const put = direct ? directWgsl(features) : logWgsl(features);
    parts.push(storeWgsl(notes), features.sharedStores ? sharedStoresWgsl(features) : put);
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
    parts.push(immediateWgsl(features, notes));
  } else if (features.atomics === "logged") {
    parts.push(loggedWgsl(features, notes));
  }
  parts.push(typedWgsl(features));
  return parts.join("\n");
}

function accessWgsl(features: KernelFeatures, notes: FaultNotes, direct: boolean): string {
  const { read } = poolWords(features);
  const four = (make: (k: number) => string) => [0, 1, 2, 3].map(make).join(", ");
  const own = direct ? undefined : ownWords(features);
  const seen = own === undefined ? "" : `if (${own}) { v = pm_own(a, v); }`;
  const seen4 =
    own === undefined ? "" : `if (${own}) { for (var k = 0u; k < 4u; k++) { v[k] = pm_own(a + k, v[k]); } }`;
  return `
fn pm_load_u32(a: u32) -> u32 {
  let e = pm_entry_of(a);
  let ok = pm_can_load(pm_word(a), e);
  ${notes.access("a", "e", `${FaultBit.Read}u`, "ok")}
  var v = select(0u, ${read("pm_at(a, e)")}, ok);
  ${seen}
  return v;
}
fn pm_load_vec4u(a: u32) -> vec4u {
  ${vectorWgsl("load", notes)}
  let at = pm_vector(a, e, f);
  var v = select(vec4u(), vec4u(${four((k) => read(`at[${k}]`))}), ok);
  ${seen4}
  return v;
}
// A span of a page that is missing reads zeros, and goes as far as if it were there.
fn pm_span(a: u32, words: u32) -> PmSpan {
  let e = pm_entry_of(a);
  let there = pm_can_load(pm_word(a), e);
  if (words != 0u) { ${notes.access("a", "e", `${FaultBit.Read}u`, "there")} }
  let end = select(${DEVICE_PAGE_WORDS}u, pm_run_end(pm_word(a), e), pm_readable(pm_word(a), e));
  return PmSpan(a, min(words, end - pm_word(a)), select(pm_word(a), pm_at(a, e), there), select(0u, e, there));
}
fn pm_span_load_u32(s: PmSpan, i: u32) -> u32 {
  let a = s.addr + i;
  let past = i >= s.words;
  if (past) { pm_die(${Fatal.SpanIndex}u, s.addr); }
  var v = select(0u, ${read("select(s.base + i, 0u, past)")}, !past & (s.entry != 0u));
  ${seen}
  return v;
}
fn pm_span_load_vec4u(s: PmSpan, i: u32) -> vec4u {
  let a = s.addr + i;
  let past = (i >= s.words) | (s.words - i < 4u);
  if (past) { pm_die(${Fatal.SpanIndex}u, s.addr); }
  let at = select(s.base + i, 0u, past);
  var v = select(vec4u(), vec4u(${four((k) => read(`at + ${k}u`))}), !past & (s.entry != 0u));
  ${seen4}
  return v;
}
`;
}

/** Statements for a vector, in one page or in two: `e`, `f`, `ok`. */
function vectorWgsl(how: "load" | "store", notes: FaultNotes): string {
  return `let e = pm_entry_of(a);
  let f = pm_entry_of(a + 3u);
  let begins = pm_can_${how}(pm_word(a), e);
  let ends = pm_can_${how}(pm_word(a + 3u), f);
  let ok = begins & ends;
  ${notes.vector(`${how === "load" ? FaultBit.Read : FaultBit.Write}u`)}`;
}

function storeWgsl(notes: FaultNotes): string {
  return `
fn pm_store_u32(a: u32, v: u32) {
  let e = pm_entry_of(a);
  let ok = pm_can_store(pm_word(a), e);
  ${notes.access("a", "e", `${FaultBit.Write}u`, "ok")}
  if (pm_hurt == 0u) { pm_put(a, e, v); }
}
fn pm_store_vec4u(a: u32, v: vec4u) {
  ${vectorWgsl("store", notes)}
  if (pm_hurt == 0u) { for (var k = 0u; k < 4u; k++) { pm_put(a + k, select(e, f, (a >> 12u) != ((a + k) >> 12u)), v[k]); } }
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
}

/** Stores that are made at once. */
function directWgsl(features: KernelFeatures): string {
  const { write } = poolWords(features);
  return `
fn pm_put(a: u32, e: u32, v: u32) { ${write("pm_at(a, e)", "v")} }
fn pm_commit_log() { }
`;
}

/** When a load may be of a word that this run has written; undefined when it cannot be. */
function ownWords(features: KernelFeatures): string | undefined {
  if (!features.writes) {
    return undefined;
  }
  const stored = features.sharedStores ? "atomicLoad(&pm_wg_used) != 0u" : "pm_logged != 0u";
  if (features.replayOrder) {
    return `${stored} || ${SOME_IN_ORDER}`;
  }
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
