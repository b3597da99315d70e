/** Finds what a kernel does to its own `var<storage, read_write>`, where a second run of it could do something else. */
import { type AbstractElem, childElems, type ExpressionElem, type FnElem, type FunctionCallExpression } from "wesl";
import type { KernelError } from "../../../base/index.ts";
import { isCollective } from "./analyse-kernel.ts";
import { calledName, type ParsedKernel } from "./parse-kernel.ts";

/** From a variable to what is accessed of it: `.member` or `[index]`. */
export type Step = { readonly member: string } | { readonly index: ExpressionElem };

/** One access to a variable, as it stands in the source. */
export interface Access {
  readonly name: string;
  readonly steps: readonly Step[];
  /** Where its path begins. */
  readonly start: number;
  readonly inLoop: boolean;
  /** An update (`+=`, `++`) reads and stores. */
  readonly how: "read" | "store" | "update" | "atomic";
  /** The statement that stores, or that is an atomic whose result is dropped. */
  readonly statement: AbstractElem | undefined;
  /** Of an atomic. */
  readonly call: FunctionCallExpression | undefined;
}

/** The indices on an access's path, outermost first. */
export function indicesOf({ steps }: Pick<Access, "steps">): ExpressionElem[] {
  return steps.flatMap((step) => ("index" in step ? [step.index] : []));
}

const ATOMICS = /^atomic(Load|Store|Add|Sub|Max|Min|And|Or|Xor|Exchange)$/;

/**
 * The accesses of one function to the variables of those names.
 *
 * Errors: ENOTSUP, with line and column: addresses of the variables, names that hide theirs, writes in the head of a loop
 * or of what the workgroup does together, atomicCompareExchangeWeak.
 */
export function findAccesses(
  kernel: ParsedKernel,
  fn: FnElem,
  names: ReadonlySet<string>,
  collective: ReadonlySet<string>,
): Access[] {
  const finder = new Finder(kernel, names, collective);
  finder.visit(fn, [], false);
  return finder.found;
}

class Finder {
  readonly #kernel: ParsedKernel;
  readonly #names: ReadonlySet<string>;
  readonly #collective: ReadonlySet<string>;
  readonly found: Access[] = [];

  constructor(kernel: ParsedKernel, names: ReadonlySet<string>, collective: ReadonlySet<string>) {
    this.#kernel = kernel;
    this.#names = names;
    this.#collective = collective;
  }

  visit(elem: AbstractElem, parents: readonly AbstractElem[], inLoop: boolean): void {
    if (elem.kind === "decl" && this.#names.has(elem.ident.originalName)) {
      const name = elem.ident.originalName;
      throw this.#refuse(elem.start, `${name} hides the variable ${name}, which the kernel writes: rename one of them`);
    }
    if (elem.kind === "ref" && this.#names.has(elem.ident.originalName)) {
      this.#note(elem.ident.originalName, elem.start, elem, parents, inLoop);
    }
    const within = inLoop || elem.kind === "for" || elem.kind === "while" || elem.kind === "loop";
    for (const child of childElems(elem)) {
      this.visit(child, [...parents, elem], within);
    }
  }

  #note(name: string, start: number, ref: AbstractElem, parents: readonly AbstractElem[], inLoop: boolean): void {
    const steps: Step[] = [];
    let path = ref;
    let up = parents.length - 1;
    for (; up > 0; up--) {
      const parent = parents[up];
      if (parent.kind === "component-expression" && parent.base === path) {
        steps.push({ index: parent.access });
      } else if (parent.kind === "component-member-expression" && parent.base === path) {
        steps.push({ member: parent.access.name });
      } else if (parent.kind !== "parenthesized-expression") {
        break;
      }
      path = parent;
    }
    const parent = parents[up];
    const common = { name, steps, start, inLoop, call: undefined };
    if (parent.kind === "assign" && parent.lhs === path) {
      this.#checkStatement(parent, parents[up - 1]);
      this.found.push({ ...common, how: parent.op.value === "=" ? "store" : "update", statement: parent });
    } else if ((parent.kind === "increment" || parent.kind === "decrement") && parent.target === path) {
      this.#checkStatement(parent, parents[up - 1]);
      this.found.push({ ...common, how: "update", statement: parent });
    } else if (parent.kind === "unary-expression" && parent.operator.value === "&") {
      const atomic = this.#atomicOf(name, parents.slice(0, up + 1));
      if (atomic !== undefined) {
        this.found.push({ ...common, how: "atomic", ...atomic });
      }
    } else {
      this.found.push({ ...common, how: "read", statement: undefined });
    }
  }

  /** What takes the address that is last in `parents`: an atomic, or undefined when it is `arrayLength`. */
  #atomicOf(name: string, parents: readonly AbstractElem[]): Pick<Access, "call" | "statement"> | undefined {
    let up = parents.length - 1;
    while (parents[up - 1].kind === "parenthesized-expression") {
      up--;
    }
    const call = parents[up - 1];
    const callee = call.kind === "call-expression" ? calledName(this.#kernel, call) : "";
    if (call.kind === "call-expression" && call.arguments[0] === parents[up]) {
      if (callee === "arrayLength") {
        return undefined;
      }
      if (ATOMICS.test(callee)) {
        const user = parents[up - 2];
        const dropped = user.kind === "call" || (user.kind === "assign" && user.lhs.kind === "phony");
        if (!dropped) {
          return { call, statement: undefined };
        }
        this.#checkStatement(user, parents[up - 3]);
        return { call, statement: user };
      }
    }
    const { start } = parents[up] as { start: number };
    throw this.#refuse(
      start,
      `${callee.startsWith("atomic") ? callee : `the address of ${name}`}: a kernel that uses pm_ functions may be run again, so its own variables are written by assignments and by atomics but atomicCompareExchangeWeak only: use pm_store_… or pm_atomic_… on the mapping's svm address`,
    );
  }

  #checkStatement(statement: AbstractElem, parent: AbstractElem): void {
    const { start } = statement as { start: number };
    if (parent.kind === "for") {
      throw this.#refuse(start, "the head of a loop writes a variable of the kernel's own: write it in the body");
    }
    if (isCollective(this.#kernel, statement, this.#collective)) {
      throw this.#refuse(
        start,
        "a variable of the kernel's own is written with what the workgroup does together: put its result into a let first",
      );
    }
  }

  #refuse(at: number, why: string): KernelError {
    return this.#kernel.source.error("ENOTSUP", at, why);
  }
}
