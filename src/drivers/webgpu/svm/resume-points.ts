/**
 * Where a kernel can be left and gone on with: at the heads of loops that touch memory, in the entry point and in functions
 * whose calls can be made before the rest of their statements.
 */
import type { ExpressionElem, FnElem, FunctionCallExpression, Statement } from "wesl";
import type { KernelAnalysis } from "./analyse-kernel.ts";
import { SVM_FUNCTIONS } from "./functions.ts";
import { namedType } from "./infer-type.ts";
import { calledName, everything, type ParsedKernel } from "./parse-kernel.ts";
import { type Binding, type FunctionScopes, resolveFunction } from "./resume-scopes.ts";

/** Numbers of the places inside a statement, from 1 on in each function. */
export interface PlaceRange {
  readonly first: number;
  readonly last: number;
}

/** A call of a function with places. */
export interface PlacedCall {
  readonly call: FunctionCallExpression;
  readonly callee: FnElem;
  readonly place: number;
}

/** The places of one function. */
export interface FunctionPlaces {
  readonly scopes: FunctionScopes;
  /** Statements with places in them: a loop's own is the first of its range. */
  readonly ranges: ReadonlyMap<Statement, PlaceRange>;
  /** The calls that come before a statement, in their order. */
  readonly calls: ReadonlyMap<Statement, readonly PlacedCall[]>;
}

/** The places of each function that has any; the entry point comes last. */
export function findPlaces(kernel: ParsedKernel, analysis: KernelAnalysis, entry: FnElem): Map<FnElem, FunctionPlaces> {
  const finder = new Finder(kernel, analysis);
  finder.placesOf(entry);
  return finder.found;
}

class Finder {
  readonly #kernel: ParsedKernel;
  readonly #touching: ReadonlySet<string>;
  readonly found = new Map<FnElem, FunctionPlaces>();
  readonly #visited = new Map<FnElem, FunctionPlaces | undefined>();

  constructor(kernel: ParsedKernel, analysis: KernelAnalysis) {
    this.#kernel = kernel;
    this.#touching = touchingFunctions(kernel, analysis.reached);
  }

  placesOf(fn: FnElem): FunctionPlaces | undefined {
    if (this.#visited.has(fn)) {
      return this.#visited.get(fn);
    }
    // A function that calls itself is refused by WGSL itself; here it must only not hang.
    this.#visited.set(fn, undefined);
    const scopes = resolveFunction(this.#kernel, fn);
    const ranges = new Map<Statement, PlaceRange>();
    const calls = new Map<Statement, PlacedCall[]>();
    let count = 0;
    const visit = (s: Statement): void => {
      const before = count;
      if (isLoop(s) && this.#touches(s)) {
        count++;
      }
      const early = this.#earlyCalls(s, scopes).map((found) => {
        count++;
        return { ...found, place: count };
      });
      if (early.length > 0) {
        calls.set(s, early);
      }
      nestedStatements(s).forEach(visit);
      if (count > before) {
        ranges.set(s, { first: before + 1, last: count });
      }
    };
    fn.body.body.forEach(visit);
    const places = count === 0 ? undefined : { scopes, ranges, calls };
    this.#visited.set(fn, places);
    if (places !== undefined) {
      this.found.set(fn, places);
    }
    return places;
  }

  #touches(elem: Statement): boolean {
    return callsOf(this.#kernel, elem).some((name) => SVM_FUNCTIONS.has(name) || this.#touching.has(name));
  }

  /** Calls that can be made before everything else in a statement. */
  #earlyCalls(s: Statement, scopes: FunctionScopes): Omit<PlacedCall, "place">[] {
    const found: Omit<PlacedCall, "place">[] = [];
    // What was evaluated so far is the same after a call that comes later.
    let steady = true;
    const visit = (e: ExpressionElem, certain: boolean): void => {
      switch (e.kind) {
        case "ref":
          steady &&= this.#isSteady(e.ident.originalName, scopes.ofName.get(e));
          break;
        case "parenthesized-expression":
          visit(e.expression, certain);
          break;
        case "unary-expression":
          if (e.operator.value !== "&") {
            visit(e.expression, certain);
          }
          steady &&= e.operator.value !== "*";
          break;
        case "binary-expression":
          visit(e.left, certain);
          visit(e.right, certain && e.operator.value !== "&&" && e.operator.value !== "||");
          break;
        case "component-member-expression":
          visit(e.base, certain);
          break;
        case "component-expression":
          visit(e.base, certain);
          visit(e.access, certain);
          break;
        case "call-expression": {
          const before = steady;
          for (const arg of e.arguments) {
            visit(arg, certain);
          }
          const name = calledName(this.#kernel, e);
          const fn = this.#kernel.functions.get(name);
          if (fn !== undefined && before && certain && this.#canGoOn(fn)) {
            found.push({ call: e, callee: fn });
            steady = true;
          } else {
            steady &&= fn === undefined && !SVM_FUNCTIONS.has(name);
          }
          break;
        }
        default:
      }
    };
    for (const e of expressionsOf(s)) {
      visit(e, true);
    }
    return found;
  }

  #canGoOn(fn: FnElem): boolean {
    return (
      this.#touching.has(fn.name.ident.originalName) && canBeLeft(this.#kernel, fn) && this.placesOf(fn) !== undefined
    );
  }

  /** Whether no call can change what a name means. */
  #isSteady(name: string, binding: Binding | undefined): boolean {
    if (binding !== undefined) {
      return binding.element.kind !== "var" || !binding.isAddressed;
    }
    const template = this.#kernel.variables.get(name)?.template ?? [];
    return !template.some((word) => word.name === "private" || word.name === "workgroup");
  }
}

/** Pointers are parameters that cannot be kept; results have to be of a type with a zero value. */
function canBeLeft(kernel: ParsedKernel, fn: FnElem): boolean {
  const types = fn.params.map((param) => param.name.typeRef);
  return (
    types.every((type) => type !== undefined && namedType(kernel, type) !== undefined) &&
    (fn.returnType === undefined || namedType(kernel, fn.returnType) !== undefined)
  );
}

/** The expressions of a statement that are evaluated once and before all else in it, in their order. */
function expressionsOf(s: Statement): readonly ExpressionElem[] {
  switch (s.kind) {
    case "call":
      return [s.call];
    case "var":
    case "let":
      return s.init === undefined ? [] : [s.init];
    case "assign": {
      if (s.lhs.kind === "phony") {
        return [s.rhs];
      }
      // A plain assignment does not read the variable, but says which part of it is meant.
      const target = s.op.value === "=" ? indicesOf(s.lhs) : [s.lhs];
      return [...target, s.rhs];
    }
    case "return":
      return s.value === undefined ? [] : [s.value];
    case "if":
      return [s.condition];
    case "switch":
      return [s.selector];
    default:
      return [];
  }
}

function indicesOf(e: ExpressionElem): ExpressionElem[] {
  switch (e.kind) {
    case "component-expression":
      return [...indicesOf(e.base), e.access];
    case "component-member-expression":
      return indicesOf(e.base);
    case "parenthesized-expression":
      return indicesOf(e.expression);
    case "ref":
      return [];
    default:
      return [e];
  }
}

function isLoop(s: Statement): boolean {
  return s.kind === "for" || s.kind === "while" || s.kind === "loop";
}

/** Statements directly in one; not those of `continuing`, where nothing can be gone on with. */
export function nestedStatements(s: Statement): readonly Statement[] {
  switch (s.kind) {
    case "block":
      return s.body;
    case "if":
      return [...s.body.body, ...(s.else === undefined ? [] : [s.else])];
    case "for":
    case "while":
      return s.body.body;
    case "loop":
      return s.body.body.filter((inner) => inner.kind !== "continuing");
    case "switch":
      return s.clauses.flatMap((clause) => clause.body.body);
    default:
      return [];
  }
}

function callsOf(kernel: ParsedKernel, elem: Statement | FnElem): string[] {
  const names: string[] = [];
  for (const inner of everything(elem)) {
    if (inner.kind === "call-expression") {
      names.push(calledName(kernel, inner));
    }
  }
  return names;
}

/** Functions that use memory, themselves or in what they call. */
function touchingFunctions(kernel: ParsedKernel, reached: readonly FnElem[]): Set<string> {
  const calls = reached.map((fn) => ({ name: fn.name.ident.originalName, calls: callsOf(kernel, fn) }));
  const touching = new Set<string>();
  for (let before = -1; before !== touching.size; ) {
    before = touching.size;
    for (const fn of calls) {
      if (fn.calls.some((name) => SVM_FUNCTIONS.has(name) || touching.has(name))) {
        touching.add(fn.name);
      }
    }
  }
  return touching;
}
