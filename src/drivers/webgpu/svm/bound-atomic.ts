/** An atomic on a variable of the kernel's own whose result may be used: called through a function that applies it once. */
import type { AbstractElem, FunctionCallExpression } from "wesl";
import { type Access, indicesOf } from "./bound-access.ts";
import { calledName, type ParsedKernel } from "./parse-kernel.ts";
import type { Edits } from "./source-text.ts";
import { elementType, memberType, type TypeElem, typeName } from "./wgsl-types.ts";

/** One such call in the source. */
export class BoundAtomic {
  readonly access: Access;
  readonly #kernel: ParsedKernel;
  readonly #call: FunctionCallExpression;
  readonly #name: string;
  readonly #number: number;

  constructor(kernel: ParsedKernel, access: Access, number: number) {
    this.#kernel = kernel;
    this.access = access;
    this.#call = access.call as FunctionCallExpression;
    this.#number = number;
    this.#name = `pm_bound_atomic_${number}`;
  }

  /** Of the word: `i32` or `u32`. */
  get #type(): "i32" | "u32" {
    const kernel = this.#kernel;
    let type: TypeElem | undefined = kernel.variables.get(this.access.name)?.name.typeRef;
    for (const step of this.access.steps) {
      type = type && ("index" in step ? elementType(kernel, type) : memberType(kernel, type, step.member));
    }
    const word = type && elementType(kernel, type);
    return word !== undefined && typeName(word) === "i32" ? "i32" : "u32";
  }

  /** The function, which a later run of the same invocation gets the first one's result from. */
  wgsl(): string {
    const type = this.#type;
    const callee = calledName(this.#kernel, this.#call);
    const bits = (value: string) => (type === "u32" ? value : `bitcast<u32>(${value})`);
    const back = (value: string) => (type === "u32" ? value : `bitcast<i32>(${value})`);
    const indices = indicesOf(this.access).map((_, i) => `k${i}`);
    const operand = this.#call.arguments.length > 1 ? ["v"] : [];
    const params = [...indices.map((k) => `${k}: u32`), ...operand.map((v) => `${v}: ${type}`)].join(", ");
    let next = 0;
    const path = this.access.steps.map((step) => ("index" in step ? `[${indices[next++]}]` : `.${step.member}`));
    const act = `${callee}(${[`&${this.access.name}${path.join("")}`, ...operand].join(", ")})`;
    const key = [...indices, ...operand.map(bits)].reduce(
      (hash, word) => `((${hash} ^ ${word}) * 0x9e3779b1u)`,
      `${this.#number + 1}u`,
    );
    return `
fn ${this.#name}(${params}) -> ${type} {
  let key = ${key};
  if (pm_replay(0u, key)) { return ${back("pm_result")}; }
  ${callee === "atomicStore" ? `${act}; let old = 0u;` : `let old = ${bits(act)};`}
  pm_record(0u, key, old);
  return ${back("old")};
}`;
  }

  /** Makes the call one of the function; what is in it stays where it is. */
  edit(edits: Edits): void {
    const call = this.#call;
    let from = call.start;
    let text = `${this.#name}(`;
    const keep = (elem: AbstractElem, head: string, tail: string) => {
      const { start, end } = elem as { start: number; end: number };
      edits.replace({ start: from, end: start }, `${text}${head}`);
      from = end;
      text = `${tail}, `;
    };
    for (const index of indicesOf(this.access)) {
      keep(index, "u32(", ")");
    }
    for (const operand of call.arguments.slice(1)) {
      keep(operand, "", "");
    }
    edits.replace({ start: from, end: call.end }, `${text.replace(/, $/, "")})`);
  }
}
