/** The WGSL that both pipelines of a kernel share: bindings, translation, and the functions that are made of others. */
import { HEADER_TYPE } from "./control-layout.ts";
import { RMW_OPS } from "./functions.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import { Op } from "./kernel-features.ts";
import { DEVICE_PAGE_WORDS, SvmPte } from "./page-entry.ts";

/** Bits of an address below the page number. */
const WORD_MASK = DEVICE_PAGE_WORDS - 1;
const PAGE_SHIFT = Math.log2(DEVICE_PAGE_WORDS);
/** Words of a CPU page, the grain of what is mapped. */
const SUB_SHIFT = PAGE_SHIFT - 2;

/** Reads and writes a word of the pool, which is an array of atomics when the kernel uses any. */
export interface PoolWords {
  read(index: string): string;
  write(index: string, value: string): string;
}

export function poolWords(features: KernelFeatures): PoolWords {
  return features.atomics === "none"
    ? { read: (i) => `pm_pool[${i}]`, write: (i, v) => `pm_pool[${i}] = ${v};` }
    : { read: (i) => `atomicLoad(&pm_pool[${i}])`, write: (i, v) => `atomicStore(&pm_pool[${i}], ${v});` };
}

/** The bindings of the runtime, the types that kernels see, and translation. */
export function commonWgsl(features: KernelFeatures, group: number): string {
  const word = features.atomics === "none" ? "u32" : "atomic<u32>";
  return `
@group(${group}) @binding(0) var<storage, read_write> pm_ctl: array<atomic<u32>>;
@group(${group}) @binding(1) var<storage, read> pm_pt: array<u32>;
@group(${group}) @binding(2) var<storage, read_write> pm_pool: array<${word}>;
@group(${group}) @binding(3) var<uniform> pm_head: ${HEADER_TYPE};
struct PmSpan { addr: u32, words: u32, base: u32, entry: u32 }
struct PmExchangeU32 { old_value: u32, exchanged: bool }
struct PmExchangeI32 { old_value: i32, exchanged: bool }
var<private> pm_code: u32;
var<private> pm_addr: u32;
var<private> pm_workgroup: u32;
var<private> pm_lane: u32;
// The last entry of the table is empty.
fn pm_entry_of(a: u32) -> u32 { return pm_pt[min(a >> ${PAGE_SHIFT}u, arrayLength(&pm_pt) - 1u)]; }
fn pm_word(a: u32) -> u32 { return a & ${WORD_MASK}u; }
fn pm_frame(e: u32) -> u32 { return e & ${(~WORD_MASK >>> 0).toString()}u; }
fn pm_at(a: u32, e: u32) -> u32 { return pm_frame(e) | (a & ${WORD_MASK}u); }
// What the mapping of a word's CPU page allows, and whether the device has it; these are on every access.
fn pm_readable(word: u32, e: u32) -> bool { return ((e >> (${SvmPte.ReadableShift}u + (word >> ${SUB_SHIFT}u))) & 1u) != 0u; }
fn pm_writable(word: u32, e: u32) -> bool { return ((e >> (${SvmPte.WritableShift}u + (word >> ${SUB_SHIFT}u))) & 1u) != 0u; }
fn pm_can_load(word: u32, e: u32) -> bool { return ((e >> (${SvmPte.ReadableShift}u + (word >> ${SUB_SHIFT}u))) & e & ${SvmPte.Valid}u) != 0u; }
fn pm_can_store(word: u32, e: u32) -> bool { return ((e >> (${SvmPte.WritableShift - Math.log2(SvmPte.Write)}u + (word >> ${SUB_SHIFT}u))) & e & ${SvmPte.Write}u) != 0u; }
// Places of a vector's words: in the page of its first, and from the page's end on in that of its last.
fn pm_vector(a: u32, e: u32, f: u32) -> vec4u {
  let first = pm_at(a, e);
  let last = pm_at(a + 3u, f);
  let word = pm_word(a);
  return vec4u(first, select(first + 1u, last - 2u, word > ${DEVICE_PAGE_WORDS - 2}u), select(first + 2u, last - 1u, word > ${DEVICE_PAGE_WORDS - 3}u), last);
}
// The first word of a vector that cannot be reached: its own, or the one where the next CPU page begins.
fn pm_broken_at(a: u32, begins: bool) -> u32 { return select(a, (a | ${(1 << SUB_SHIFT) - 1}u) + 1u, begins); }
// Where the words end that may be read from this one on.
fn pm_run_end(word: u32, e: u32) -> u32 {
  let sub = word >> ${SUB_SHIFT}u;
  return (sub + countTrailingZeros(~(((e >> ${SvmPte.ReadableShift}u) & 15u) >> sub))) << ${SUB_SHIFT}u;
}
`;
}

/** Functions of other types, in words of the u32 ones. */
export function typedWgsl(features: KernelFeatures): string {
  const used = features.functions;
  const lines: string[] = [];
  for (const type of ["i32", "f32", "vec4i", "vec4f"]) {
    const base = type.startsWith("vec4") ? "vec4u" : "u32";
    const define = (name: string, text: string) => {
      if (used.has(`pm_${name}_${type}`)) {
        lines.push(text);
      }
    };
    define("load", `fn pm_load_${type}(a: u32) -> ${type} { return bitcast<${type}>(pm_load_${base}(a)); }`);
    define("store", `fn pm_store_${type}(a: u32, v: ${type}) { pm_store_${base}(a, bitcast<${base}>(v)); }`);
    define(
      "span_load",
      `fn pm_span_load_${type}(s: PmSpan, i: u32) -> ${type} { return bitcast<${type}>(pm_span_load_${base}(s, i)); }`,
    );
    define(
      "span_store",
      `fn pm_span_store_${type}(s: PmSpan, i: u32, v: ${type}) { pm_span_store_${base}(s, i, bitcast<${base}>(v)); }`,
    );
  }
  if (features.atomics !== "none") {
    lines.push(...atomicFunctions(used));
  }
  return lines.join("\n");
}

/** Opcode and operand of an atomic; subtraction is addition of the negative. */
function operation(op: (typeof RMW_OPS)[number], signed: boolean): { readonly code: number; readonly negate: boolean } {
  switch (op) {
    case "add":
      return { code: Op.Add, negate: false };
    case "sub":
      return { code: Op.Add, negate: true };
    case "min":
      return { code: signed ? Op.SignedMin : Op.Min, negate: false };
    case "max":
      return { code: signed ? Op.SignedMax : Op.Max, negate: false };
    case "and":
      return { code: Op.And, negate: false };
    case "or":
      return { code: Op.Or, negate: false };
    case "xor":
      return { code: Op.Xor, negate: false };
    case "exchange":
      return { code: Op.Store, negate: false };
    default:
      return op satisfies never;
  }
}

function atomicFunctions(used: ReadonlySet<string>): string[] {
  const lines: string[] = [];
  for (const type of ["u32", "i32"]) {
    const bits = (v: string) => (type === "u32" ? v : `bitcast<u32>(${v})`);
    const back = (v: string) => (type === "u32" ? v : `bitcast<i32>(${v})`);
    const result = type === "u32" ? "PmExchangeU32" : "PmExchangeI32";
    const define = (op: string, text: string) => {
      if (used.has(`pm_atomic_${op}_${type}`)) {
        lines.push(text);
      }
    };
    for (const op of RMW_OPS) {
      const { code, negate } = operation(op, type === "i32");
      const operand = negate ? `(~${bits("v")} + 1u)` : bits("v");
      define(
        op,
        `fn pm_atomic_${op}_${type}(a: u32, v: ${type}) -> ${type} { return ${back(`pm_rmw(a, ${code}u, ${operand}, 0u)`)}; }`,
      );
    }
    define(
      "load",
      `fn pm_atomic_load_${type}(a: u32) -> ${type} { return ${back(`pm_rmw(a, ${Op.Load}u, 0u, 0u)`)}; }`,
    );
    define("store", `fn pm_atomic_store_${type}(a: u32, v: ${type}) { pm_rmw(a, ${Op.Store}u, ${bits("v")}, 0u); }`);
    define(
      "compare_exchange",
      `fn pm_atomic_compare_exchange_${type}(a: u32, c: ${type}, v: ${type}) -> ${result} {
  let old = pm_rmw(a, ${Op.CompareExchange}u, ${bits("v")}, ${bits("c")});
  return ${result}(${back("old")}, old == ${bits("c")});
}`,
    );
  }
  return lines;
}

/** `pm_apply(op, old, v, c)`: what a word becomes. `ops` are the opcodes that the kernel can use. */
export function applyWgsl(ops: ReadonlySet<number>): string {
  const cases: [number, string][] = [
    [Op.Add, "old + v"],
    [Op.Min, "min(old, v)"],
    [Op.Max, "max(old, v)"],
    [Op.And, "old & v"],
    [Op.Or, "old | v"],
    [Op.Xor, "old ^ v"],
    [Op.SignedMin, "bitcast<u32>(min(bitcast<i32>(old), bitcast<i32>(v)))"],
    [Op.SignedMax, "bitcast<u32>(max(bitcast<i32>(old), bitcast<i32>(v)))"],
    [Op.Load, "old"],
    [Op.CompareExchange, "select(old, v, old == c)"],
  ];
  const text = cases.filter(([op]) => ops.has(op)).map(([op, value]) => `case ${op}u: { return ${value}; }`);
  return `fn pm_apply(op: u32, old: u32, v: u32, c: u32) -> u32 { switch op { ${text.join(" ")} default: { return v; } } }`;
}

/**
 * `pm_do(at, op, v, c)`: the atomic itself, on a word of the pool; returns the old word. Loops are left by `break`: one
 * compiler takes no function that ends in a loop, even if that returns.
 */
export function doAtomicWgsl(ops: ReadonlySet<number>): string {
  const names: [number, string][] = [
    [Op.Add, "atomicAdd"],
    [Op.Min, "atomicMin"],
    [Op.Max, "atomicMax"],
    [Op.And, "atomicAnd"],
    [Op.Or, "atomicOr"],
    [Op.Xor, "atomicXor"],
  ];
  const cases = names
    .filter(([op]) => ops.has(op))
    .map(([op, name]) => `case ${op}u: { return ${name}(&pm_pool[at], v); }`);
  const signed = [
    [Op.SignedMin, "min"],
    [Op.SignedMax, "max"],
  ] as const;
  for (const [op, name] of signed) {
    if (ops.has(op)) {
      cases.push(`case ${op}u: {
  var old = atomicLoad(&pm_pool[at]);
  loop {
    let r = atomicCompareExchangeWeak(&pm_pool[at], old, bitcast<u32>(${name}(bitcast<i32>(old), bitcast<i32>(v))));
    if (r.exchanged) { break; }
    old = r.old_value;
  }
  return old;
}`);
    }
  }
  if (ops.has(Op.Load)) {
    cases.push(`case ${Op.Load}u: { return atomicLoad(&pm_pool[at]); }`);
  }
  if (ops.has(Op.CompareExchange)) {
    cases.push(`case ${Op.CompareExchange}u: {
  var old = c;
  loop {
    let r = atomicCompareExchangeWeak(&pm_pool[at], c, v);
    old = r.old_value;
    if (r.exchanged || old != c) { break; }
  }
  return old;
}`);
  }
  return `fn pm_do(at: u32, op: u32, v: u32, c: u32) -> u32 { switch op { ${cases.join(" ")} default: { return atomicExchange(&pm_pool[at], v); } } }`;
}

/** The opcodes that the kernel's atomics need. */
export function usedOps(functions: ReadonlySet<string>): ReadonlySet<number> {
  const ops = new Set<number>([Op.Store]);
  for (const name of functions) {
    const match = /^pm_atomic_(\w+)_([ui]32)$/.exec(name);
    if (match === null) {
      continue;
    }
    const [, op = "", type] = match;
    const rmw = RMW_OPS.find((known) => known === op);
    if (rmw !== undefined) {
      ops.add(operation(rmw, type === "i32").code);
    } else if (op === "load") {
      ops.add(Op.Load);
    } else if (op === "compare_exchange") {
      ops.add(Op.CompareExchange);
    }
  }
  return ops;
}
