/** The functions that kernels in svm mode call. */

/** What a function does, as far as rewriting a kernel depends on it. */
export type SvmFunctionKind = "load" | "store" | "atomic" | "span" | "span-load" | "span-store";

/** A `pm_*` function that kernels can call. */
export interface SvmFunction {
  readonly name: string;
  readonly kind: SvmFunctionKind;
  /** `name: type` of each parameter. */
  readonly params: readonly string[];
  readonly result: string | undefined;
  /** Words that a call stores. */
  readonly stores: number;
}

const SCALARS = ["u32", "i32", "f32"] as const;
const VECTORS = { vec4u: "vec4u", vec4i: "vec4i", vec4f: "vec4f" } as const;

/** Atomics that change the word by an operand. */
export const RMW_OPS = ["add", "sub", "min", "max", "and", "or", "xor", "exchange"] as const;

function accessors(): SvmFunction[] {
  const list: SvmFunction[] = [];
  const types = [...SCALARS, ...Object.values(VECTORS)];
  for (const type of types) {
    const stores = type.startsWith("vec4") ? 4 : 1;
    list.push(
      { name: `pm_load_${type}`, kind: "load", params: ["addr: u32"], result: type, stores: 0 },
      { name: `pm_store_${type}`, kind: "store", params: ["addr: u32", `value: ${type}`], result: undefined, stores },
      {
        name: `pm_span_load_${type}`,
        kind: "span-load",
        params: ["span: PmSpan", "i: u32"],
        result: type,
        stores: 0,
      },
      {
        name: `pm_span_store_${type}`,
        kind: "span-store",
        params: ["span: PmSpan", "i: u32", `value: ${type}`],
        result: undefined,
        stores,
      },
    );
  }
  return list;
}

function atomics(): SvmFunction[] {
  const list: SvmFunction[] = [];
  for (const type of ["u32", "i32"]) {
    const make = (op: string, params: string[], result: string | undefined, stores: number): SvmFunction => ({
      name: `pm_atomic_${op}_${type}`,
      kind: "atomic",
      params: ["addr: u32", ...params],
      result,
      stores,
    });
    list.push(
      make("load", [], type, 0),
      make("store", [`value: ${type}`], undefined, 1),
      make(
        "compare_exchange",
        [`compare: ${type}`, `value: ${type}`],
        type === "u32" ? "PmExchangeU32" : "PmExchangeI32",
        1,
      ),
      ...RMW_OPS.map((op) => make(op, [`value: ${type}`], type, 1)),
    );
  }
  return list;
}

/** By name. */
export const SVM_FUNCTIONS: ReadonlyMap<string, SvmFunction> = new Map(
  [
    ...accessors(),
    ...atomics(),
    {
      name: "pm_span",
      kind: "span",
      params: ["addr: u32", "words: u32"],
      result: "PmSpan",
      stores: 0,
    } as const,
  ].map((fn) => [fn.name, fn]),
);

/** Types that kernels may name. */
export const SVM_TYPES: ReadonlySet<string> = new Set(["PmSpan", "PmExchangeU32", "PmExchangeI32"]);

/** How a function is called, for error messages. */
export function signatureOf(fn: SvmFunction): string {
  return `${fn.name}(${fn.params.join(", ")})${fn.result === undefined ? "" : ` -> ${fn.result}`}`;
}
