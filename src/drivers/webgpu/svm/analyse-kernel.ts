/** Looks through a parsed kernel for what its pipelines have to be able to do. */
import { type AbstractElem, childElems, type FnElem, type FunctionCallExpression } from "wesl";
import { SVM_FUNCTIONS, type SvmFunction, signatureOf } from "./functions.ts";
import type { AtomicScheme, KernelFeatures } from "./kernel-features.ts";
import { calledName, everything, type ParsedKernel } from "./parse-kernel.ts";

/** Entries of the store log when the stores cannot be counted, and at most. */
const LOG_ENTRIES = 16;
const MOST_LOG_ENTRIES = 32;
/** Records of the replay log when the atomics cannot be counted. */
export const REPLAY_RECORDS = 32;

/** Operations that invocations of a workgroup do together. */
const COLLECTIVE = /^(workgroupBarrier|storageBarrier|textureBarrier|workgroupUniformLoad|subgroup\w+|quad\w+)$/;

/** Statements that repeat. */
const LOOPS: ReadonlySet<AbstractElem["kind"]> = new Set(["for", "while", "loop"]);

/** What one function does itself. */
interface FunctionFacts {
  readonly element: FnElem;
  readonly calls: readonly CallFacts[];
  /** Names of variables and functions that it mentions. */
  readonly names: ReadonlySet<string>;
}

interface CallFacts {
  readonly name: string;
  readonly inLoop: boolean;
  readonly resultUsed: boolean;
  /** Where it stands in the text. */
  readonly start: number;
  readonly end: number;
}

/** A kernel's features, and what rewriting it needs to know of its functions. */
export interface KernelAnalysis {
  readonly features: KernelFeatures;
  /** The functions that the entry point can reach, itself included. */
  readonly reached: readonly FnElem[];
  /** Functions in which a barrier or the like can be met. */
  readonly collective: ReadonlySet<string>;
  /** Global variables that are reached. */
  readonly variables: ReadonlySet<string>;
}

/**
 * Analyses what an entry point can reach.
 *
 * Errors: EINVAL for a call of ours with the wrong number of arguments.
 */
export function analyseKernel(kernel: ParsedKernel, entry: FnElem): KernelAnalysis {
  const facts = new Map<string, FunctionFacts>();
  const reach = (element: FnElem) => {
    const name = element.name.ident.originalName;
    if (facts.has(name)) {
      return;
    }
    const own = factsOf(kernel, element);
    facts.set(name, own);
    for (const call of own.names) {
      const callee = kernel.functions.get(call);
      if (callee !== undefined) {
        reach(callee);
      }
    }
  };
  reach(entry);
  const all = [...facts.values()];
  const names = new Set(all.flatMap((fn) => [...fn.names]));
  const variables = new Set([...kernel.variables.keys()].filter((name) => names.has(name)));
  const collective = collectiveFunctions(facts);
  const entryName = entry.name.ident.originalName;
  return {
    features: featuresOf(kernel, facts, entryName, collective.has(entryName), variables),
    reached: all.map((fn) => fn.element),
    collective,
    variables,
  };
}

function factsOf(kernel: ParsedKernel, element: FnElem): FunctionFacts {
  const calls: CallFacts[] = [];
  const names = new Set<string>();
  const visit = (elem: AbstractElem, inLoop: boolean, parent: AbstractElem | undefined) => {
    if (elem.kind === "ref") {
      names.add(elem.ident.originalName);
    } else if (elem.kind === "call-expression") {
      const name = calledName(kernel, elem);
      names.add(name);
      calls.push({ name, inLoop, resultUsed: !isDropped(parent), start: elem.start, end: elem.end });
      const known = SVM_FUNCTIONS.get(name);
      if (known !== undefined) {
        checkArity(kernel, elem, known);
      }
    }
    const within = inLoop || LOOPS.has(elem.kind);
    for (const child of childElems(elem)) {
      visit(child, within, elem);
    }
  };
  visit(element, false, undefined);
  return { element, calls, names };
}

function isDropped(parent: AbstractElem | undefined): boolean {
  return parent?.kind === "call" || (parent?.kind === "assign" && parent.lhs.kind === "phony");
}

function checkArity(kernel: ParsedKernel, call: FunctionCallExpression, fn: SvmFunction): void {
  const given = call.arguments.length;
  if (given !== fn.params.length) {
    throw kernel.source.error(
      "EINVAL",
      call.start,
      `${fn.name} takes ${fn.params.length} arguments, not ${given}: ${signatureOf(fn)}`,
    );
  }
}

/** Those that meet a barrier themselves or in what they call. */
function collectiveFunctions(facts: ReadonlyMap<string, FunctionFacts>): Set<string> {
  const found = new Set<string>();
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const [name, fn] of facts) {
      if (fn.calls.some((call) => COLLECTIVE.test(call.name) || found.has(call.name))) {
        found.add(name);
      }
    }
  }
  return found;
}

/** Whether an element holds a call that only a whole workgroup may make. */
export function isCollective(kernel: ParsedKernel, elem: AbstractElem, functions: ReadonlySet<string>): boolean {
  for (const inner of everything(elem)) {
    if (inner.kind === "call-expression") {
      const name = calledName(kernel, inner);
      if (COLLECTIVE.test(name) || functions.has(name)) {
        return true;
      }
    }
  }
  return false;
}

function featuresOf(
  kernel: ParsedKernel,
  facts: ReadonlyMap<string, FunctionFacts>,
  entry: string,
  barriers: boolean,
  variables: ReadonlySet<string>,
): KernelFeatures {
  const calls = [...facts.values()].flatMap((fn) => fn.calls);
  const used = calls.flatMap((call) => {
    const fn = SVM_FUNCTIONS.get(call.name);
    return fn === undefined ? [] : [{ fn, call }];
  });
  const functions = new Set(used.map(({ fn }) => fn.name));
  const loads = used.some(({ fn }) => fn.kind === "load" || fn.kind === "span-load");
  const changing = used.filter(({ fn }) => fn.stores > 0);
  const workgroupMemory = [...variables].some((name) =>
    kernel.variables.get(name)?.template?.some((word) => word.name === "workgroup"),
  );
  const sharesStorage = calls.some((call) => call.name === "storageBarrier");
  const sharedStores = sharesStorage && used.some(({ fn }) => fn.kind === "store" || fn.kind === "span-store");
  const atomics = atomicScheme(used, sharesStorage && changing.length > 0);
  const collective = barriers || workgroupMemory;
  const stores = count(facts, entry, (fn) => (atomics === "immediate" && fn.kind === "atomic" ? 0 : fn.stores));
  const results = count(facts, entry, (fn) => (fn.kind === "atomic" ? 1 : 0));
  return {
    functions,
    loads,
    writes: changing.length > 0,
    atomics,
    collective,
    loadsUniform: calls.some((call) => call.name === "workgroupUniformLoad"),
    sharedStores,
    logEntries: Math.max(1, stores <= MOST_LOG_ENTRIES ? stores : LOG_ENTRIES),
    logCanOverflow: !sharedStores && stores > MOST_LOG_ENTRIES,
    storesInLoops: stores > MOST_LOG_ENTRIES,
    endsWithStore: endsWithStore(facts, entry),
    replayRecords: atomics === "immediate" ? Math.min(results, REPLAY_RECORDS) : 0,
    replayOrder: collective && loads && atomics === "immediate",
    defersBound: false,
    reread: [],
  };
}

/** Of calls of the user's own functions it is not looked into what they do. */
function endsWithStore(facts: ReadonlyMap<string, FunctionFacts>, entry: string): boolean {
  const storesOf = (call: CallFacts) => SVM_FUNCTIONS.get(call.name)?.stores ?? 0;
  const own = facts.get(entry)?.calls ?? [];
  const stores = [...facts.values()].flatMap((fn) => fn.calls.filter((call) => storesOf(call) > 0));
  const last = own.find((call) => storesOf(call) > 0);
  if (stores.length !== 1 || last === undefined || last.inLoop || SVM_FUNCTIONS.get(last.name)?.kind !== "store") {
    return false;
  }
  return !own.some((call) => call.start >= last.end && (SVM_FUNCTIONS.has(call.name) || facts.has(call.name)));
}

function atomicScheme(
  used: readonly { readonly fn: SvmFunction; readonly call: CallFacts }[],
  handsOn: boolean,
): AtomicScheme {
  const atomics = used.filter(({ fn }) => fn.kind === "atomic");
  if (atomics.length === 0) {
    return "none";
  }
  const needed = atomics.some(
    ({ fn, call }) => fn.stores > 0 && (fn.name.startsWith("pm_atomic_compare_exchange") || isResultUsed(fn, call)),
  );
  return needed || handsOn ? "immediate" : "logged";
}

function isResultUsed(fn: SvmFunction, call: CallFacts): boolean {
  return fn.result !== undefined && call.resultUsed;
}

/** The most that one run can do of something, Infinity when it stands in a loop. */
function count(facts: ReadonlyMap<string, FunctionFacts>, entry: string, weigh: (fn: SvmFunction) => number): number {
  const known = new Map<string, number>();
  const of = (name: string): number => {
    const done = known.get(name);
    if (done !== undefined) {
      return done;
    }
    // A function that calls itself is refused by WGSL itself; here it must only not hang.
    known.set(name, 0);
    let sum = 0;
    for (const call of facts.get(name)?.calls ?? []) {
      const fn = SVM_FUNCTIONS.get(call.name);
      const once = fn === undefined ? of(call.name) : weigh(fn);
      sum += once > 0 && call.inLoop ? Number.POSITIVE_INFINITY : once;
    }
    known.set(name, sum);
    return sum;
  };
  return of(entry);
}
