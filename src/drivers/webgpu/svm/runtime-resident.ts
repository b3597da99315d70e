/**
 * The functions when all is resident: translation and nothing else, without a branch. A bad access goes to frame 0 and is
 * reported when the invocation ends.
 */
import { Control, Fatal } from "./control-layout.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import { Op } from "./kernel-features.ts";
import { DEVICE_PAGE_WORDS } from "./page-entry.ts";
import { commonWgsl, doAtomicWgsl, poolWords, typedWgsl, usedOps } from "./runtime-common.ts";

export function residentRuntime(features: KernelFeatures, group: number): string {
  const { read, write } = poolWords(features);
  const tell = (bad: string) => (features.collective ? `if (${bad}) { atomicStore(&pm_wg_bad, 1u); }` : "");
  const four = (make: (k: number) => string) => [0, 1, 2, 3].map(make);
  const parts = [
    commonWgsl(features, group),
    `
// Too often asked to keep the address: that of the span has to do.
var<private> pm_past: bool;
var<private> pm_last_span: u32;
fn pm_bad(a: u32, code: u32, bad: bool) {
  let first = bad & (pm_code == 0u);
  pm_addr = select(pm_addr, a, first);
  pm_code = select(pm_code, code, first);
  ${tell("bad")}
}
fn pm_load_u32(a: u32) -> u32 {
  let e = pm_entry_of(a);
  let bad = !pm_can_load(pm_word(a), e);
  pm_bad(a, ${Fatal.ReadUnmapped}u, bad);
  return ${read("select(pm_at(a, e), pm_word(a), bad)")};
}
fn pm_store_u32(a: u32, v: u32) {
  let e = pm_entry_of(a);
  let bad = !pm_can_store(pm_word(a), e);
  pm_bad(a, ${Fatal.WriteUnmapped}u, bad);
  ${write("select(pm_at(a, e), pm_word(a), bad)", "v")}
}
// A vector lies in one page or in two; each of its words is found without a branch.
${["load", "store"]
  .map(
    (how) => `fn pm_${how}_at(a: u32) -> vec4u {
  let e = pm_entry_of(a);
  let f = pm_entry_of(a + 3u);
  let begins = pm_can_${how}(pm_word(a), e);
  let ok = begins & pm_can_${how}(pm_word(a + 3u), f);
  pm_bad(pm_broken_at(a, begins), ${how === "load" ? Fatal.ReadUnmapped : Fatal.WriteUnmapped}u, !ok);
  return pm_vector(a, select(0u, e, ok), select(0u, f, ok));
}`,
  )
  .join("\n")}
fn pm_load_vec4u(a: u32) -> vec4u {
  let at = pm_load_at(a);
  return vec4u(${four((k) => read(`at[${k}]`)).join(", ")});
}
fn pm_store_vec4u(a: u32, v: vec4u) {
  let at = pm_store_at(a);
  ${four((k) => write(`at[${k}]`, `v[${k}]`)).join("\n  ")}
}
fn pm_span(a: u32, words: u32) -> PmSpan {
  let e = pm_entry_of(a);
  let bad = (words != 0u) & !pm_can_load(pm_word(a), e);
  pm_bad(a, ${Fatal.ReadUnmapped}u, bad);
  pm_last_span = select(a, pm_last_span, pm_past);
  let end = select(pm_run_end(pm_word(a), e), ${DEVICE_PAGE_WORDS}u, bad);
  return PmSpan(a, min(words, max(end, pm_word(a)) - pm_word(a)), select(pm_at(a, e), pm_word(a), bad), e);
}
fn pm_span_load_u32(s: PmSpan, i: u32) -> u32 {
  let bad = i >= s.words;
  pm_past |= bad;
  ${tell("bad")}
  return ${read("select(s.base + i, 0u, bad)")};
}
fn pm_span_load_vec4u(s: PmSpan, i: u32) -> vec4u {
  let bad = (i >= s.words) | (s.words - i < 4u);
  pm_past |= bad;
  ${tell("bad")}
  let at = select(s.base + i, 0u, bad);
  return vec4u(${four((k) => read(`at + ${k}u`)).join(", ")});
}
fn pm_span_store_u32(s: PmSpan, i: u32, v: u32) {
  let past = i >= s.words;
  let locked = !pm_can_store(pm_word(s.addr + i), s.entry);
  pm_past |= past;
  ${tell("past")}
  pm_bad(s.addr + i, ${Fatal.WriteUnmapped}u, locked);
  ${write("select(s.base + i, 0u, past | locked)", "v")}
}
fn pm_span_store_vec4u(s: PmSpan, i: u32, v: vec4u) {
  let past = (i >= s.words) | (s.words - i < 4u);
  let a = s.addr + i;
  let begins = pm_can_store(pm_word(a), s.entry);
  let locked = !(begins & pm_can_store(pm_word(a + 3u), s.entry));
  pm_past |= past;
  ${tell("past")}
  pm_bad(pm_broken_at(a, begins), ${Fatal.WriteUnmapped}u, locked);
  let at = select(s.base + i, 0u, past | locked);
  ${four((k) => write(`at + ${k}u`, `v[${k}]`)).join("\n  ")}
}
`,
    features.collective ? stopWgsl : "",
    reportWgsl,
    judgeWgsl,
    typedWgsl(features),
  ];
  if (features.atomics !== "none") {
    const ops = usedOps(features.functions);
    parts.push(
      doAtomicWgsl(ops),
      `
fn pm_rmw(a: u32, op: u32, v: u32, c: u32) -> u32 {
  let e = pm_entry_of(a);
  let loads = op == ${Op.Load}u;
  let bad = !select(pm_can_store(pm_word(a), e), pm_can_load(pm_word(a), e), loads);
  pm_bad(a, select(${Fatal.WriteUnmapped}u, ${Fatal.ReadUnmapped}u, loads), bad);
  return pm_do(select(pm_at(a, e), pm_word(a), bad), op, v, c);
}
`,
    );
  }
  return parts.join("\n");
}

/** A workgroup that had a bad access; what its invocations find in workgroup memory can come of it. */
const stopWgsl = `
var<workgroup> pm_wg_bad: atomic<u32>;
var<workgroup> pm_wg_stopped: u32;
fn pm_stop_all() -> bool {
  workgroupBarrier();
  if (pm_lane == 0u) { pm_wg_stopped = atomicLoad(&pm_wg_bad); }
  return workgroupUniformLoad(&pm_wg_stopped) != 0u;
}
`;

/**
 * Statements at the start of a loop's body: after a bad access it ends, for what it waits for may never be read. `together`:
 * all invocations of the workgroup go through the loop alike; for how long, WGSL lets them decide by what was loaded only with
 * `workgroupUniformLoad`.
 */
export function residentLoopCheck({ collective, loadsUniform, functions }: KernelFeatures, together: boolean): string {
  if (together) {
    return loadsUniform ? " if (pm_stop_all()) { break; } " : "";
  }
  if (collective) {
    return " if (atomicLoad(&pm_wg_bad) != 0u) { break; } ";
  }
  const hasSpans = [...functions].some((name) => name.startsWith("pm_span_"));
  return hasSpans ? " if ((pm_code != 0u) | pm_past) { break; } " : " if (pm_code != 0u) { break; } ";
}

/** `pm_report()`: the invocation's fatal access becomes the dispatch's, unless another one was first. */
export const reportWgsl = `
fn pm_report() {
  if (atomicAdd(&pm_ctl[${Control.FatalCount}], 1u) == 0u) {
    atomicStore(&pm_ctl[${Control.FatalCode}], pm_code);
    atomicStore(&pm_ctl[${Control.FatalAddress}], pm_addr);
    atomicStore(&pm_ctl[${Control.FatalWorkgroup}], pm_workgroup);
    atomicStore(&pm_ctl[${Control.FatalLane}], pm_lane);
  }
}
`;

/** `pm_judge()`: what a bad access was, once it is over. An index past a span comes before what it may have led to. */
const judgeWgsl = `
fn pm_judge() {
  let e = pm_entry_of(pm_addr);
  let locked = pm_readable(pm_word(pm_addr), e) & !pm_writable(pm_word(pm_addr), e);
  pm_code = select(pm_code, ${Fatal.WriteReadOnly}u, (pm_code == ${Fatal.WriteUnmapped}u) & locked);
  pm_addr = select(pm_addr, pm_last_span, pm_past);
  pm_code = select(pm_code, ${Fatal.SpanIndex}u, pm_past);
}
`;
