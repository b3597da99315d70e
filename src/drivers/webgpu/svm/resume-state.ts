/** What a run keeps of itself when it is left, in words of the control buffer, and the second texts of a kernel's functions. */
import type { FnElem } from "wesl";
import type { KernelAnalysis } from "./analyse-kernel.ts";
import type { BoundWrites } from "./bound-writes.ts";
import { dieIfMixed, probes, unwritten } from "./entry.ts";
import { typeText, type WgslType } from "./infer-type.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import type { ParsedKernel } from "./parse-kernel.ts";
import { type KeptVariable, NotResumable, placeVariable, type ResumeContext, resumableName } from "./resume-names.ts";
import { findPlaces } from "./resume-points.ts";
import { globalType } from "./resume-scopes.ts";
import { resumableText } from "./resume-text.ts";
import { loopCheck } from "./runtime-faults.ts";

/** Words that an invocation may keep; two copies of them are private memory, of which WGSL promises 8 KiB. */
export const MOST_KEPT_WORDS = 768;

/** A kernel's resume points, as text. */
export interface ResumeText {
  /** The functions, the variables they keep, and `pm_point`, `pm_restore`, `pm_save_kept`, `pm_load_kept`. */
  readonly wgsl: string;
  /** The function that stands for the entry point. */
  readonly entry: string;
  /** Of the entry point: where it was left. */
  readonly place: string;
  /** Words an invocation. */
  readonly words: number;
}

/** Writes a kernel's resume points, or says why it has none: a part of a sentence. */
export function resumeText(
  kernel: ParsedKernel,
  analysis: KernelAnalysis,
  entry: FnElem,
  bound?: BoundWrites,
): ResumeText | string {
  try {
    return writeText(kernel, analysis, entry, bound);
  } catch (error) {
    if (error instanceof NotResumable) {
      return error.message;
    }
    throw error;
  }
}

function writeText(
  kernel: ParsedKernel,
  analysis: KernelAnalysis,
  entry: FnElem,
  bound: BoundWrites | undefined,
): ResumeText {
  const { features } = analysis;
  if (features.collective) {
    throw new NotResumable("it has barriers, workgroup memory or subgroup operations, so a workgroup runs as a whole");
  }
  const places = findPlaces(kernel, analysis, entry);
  if (!places.has(entry)) {
    throw new NotResumable(
      `${entry.name.ident.originalName} has no loop that uses memory, nor calls a function with one where it could be left`,
    );
  }
  const globals = privateVariables(kernel, analysis.variables);
  const made: KeptVariable[] = [];
  const context: ResumeContext = {
    kernel,
    bound,
    loopCheck: loopCheck(features, false),
    ready: features.replayRecords > 0 ? "(pm_hurt == 0u) & (pm_replayed == pm_recorded)" : "pm_hurt == 0u",
    kept: made,
  };
  const functions = [...places].map(([fn, own]) => resumableText(context, fn, own, fn === entry));
  const kept = [...globals, ...made];
  const words = kept.reduce((sum, { type }) => sum + wordsOf(type), 0);
  if (words > MOST_KEPT_WORDS) {
    const largest = kept.reduce((a, b) => (wordsOf(b.type) > wordsOf(a.type) ? b : a));
    throw new NotResumable(
      `an invocation's variables are ${words} words, and ${MOST_KEPT_WORDS} can be kept: ${plainName(largest.name)} alone is ${wordsOf(largest.type)}`,
    );
  }
  const declarations = made.map(({ name, type }) => `var<private> ${name}: ${typeText(type)};`);
  return {
    wgsl: [...declarations, stateWgsl(kept), pointWgsl(features, bound?.forget ?? ""), ...functions].join("\n"),
    entry: resumableName(entry),
    place: placeVariable(entry),
    words,
  };
}

/** What the kernel's author calls a variable of ours. */
function plainName(name: string): string {
  return name.replace(/^pm_[vp]\d+_/, "");
}

function privateVariables(kernel: ParsedKernel, reached: ReadonlySet<string>): KeptVariable[] {
  return [...kernel.variables].flatMap(([name, variable]) => {
    if (!reached.has(name) || !variable.template?.some((word) => word.name === "private")) {
      return [];
    }
    const type = globalType(kernel, name);
    if (type === undefined) {
      throw new NotResumable(
        `the type of ${name} (${kernel.source.place(variable.start)}) cannot be found: declare it, var<private> ${name}: TYPE`,
      );
    }
    return [{ name, type }];
  });
}

function wordsOf(type: WgslType): number {
  switch (type.kind) {
    case "scalar":
      return 1;
    case "vector":
      return type.size;
    case "matrix":
      return type.columns * type.rows;
    case "array":
      return type.length * wordsOf(type.element);
    case "struct":
      return type.members.reduce((sum, [, member]) => sum + wordsOf(member), 0);
    default:
      return type satisfies never;
  }
}

function stateWgsl(kept: readonly KeptVariable[]): string {
  const load: string[] = [];
  const save: string[] = [];
  let at = 0;
  for (const { name, type } of kept) {
    const path = `pm_kept.${name}`;
    load.push(
      forEachWord(
        path,
        type,
        `${at}u`,
        (p, scalar, k) => `${p} = ${fromWord(scalar, `atomicLoad(&pm_ctl[pm_spill + ${k}])`)};`,
      ),
    );
    save.push(
      forEachWord(
        path,
        type,
        `${at}u`,
        (p, scalar, k) => `atomicStore(&pm_ctl[pm_spill + ${k}], ${toWord(scalar, p)});`,
      ),
    );
    at += wordsOf(type);
  }
  return `
struct PmState { ${kept.map(({ name, type }) => `${name}: ${typeText(type)}`).join(", ")} }
var<private> pm_kept: PmState;
// Where it is kept between runs.
var<private> pm_spill: u32;
// This run goes on somewhere, and has not come there yet.
var<private> pm_skip: bool;
// This run ends here, and what it did since it was kept last is done once more.
var<private> pm_rewind: u32;
// How often it was kept.
var<private> pm_passed: u32;
fn pm_load_kept() {
  ${load.join("\n  ")}
}
fn pm_save_kept() {
  ${save.join("\n  ")}
}
fn pm_keep() {
  ${kept.map(({ name }) => `pm_kept.${name} = ${name};`).join("\n  ")}
}
fn pm_restore() {
  ${kept.map(({ name }) => `${name} = pm_kept.${name};`).join("\n  ")}
  ${kept.map(restoreSpans).join("\n  ")}
}`;
}

/** At the head of a loop in a run without a miss: what was stored is committed, and the run kept. True: leave. */
function pointWgsl(features: KernelFeatures, forget: string): string {
  const { logCanOverflow, atomics, replayRecords } = features;
  const mixed = logCanOverflow && atomics === "immediate";
  const again = probes(features)
    ? `if (${unwritten(features)} != 0u) {
    ${dieIfMixed(features, "return false;")}
    pm_rewind = 1u;
    return true;
  }
  ${logCanOverflow ? "pm_high_store = 0u;" : ""}
  ${forget}`
    : "";
  const records =
    replayRecords > 0
      ? `if (pm_recorded != 0u) {
    pm_recorded = 0u;
    pm_replayed = 0u;
    atomicStore(&pm_ctl[pm_slot], 0u);
  }`
      : "";
  return `
fn pm_point() -> bool {
  ${again}
  pm_commit_log();
  pm_committing = 0u;
  ${mixed ? "pm_mixed = 0u;" : ""}
  ${records}
  pm_keep();
  pm_passed++;
  return false;
}`;
}

type EachWord = (path: string, scalar: string, word: string) => string;

function forEachWord(path: string, type: WgslType, at: string, each: EachWord, depth = 0): string {
  switch (type.kind) {
    case "scalar":
      return each(path, type.name, at);
    case "vector":
      return range(type.size, (k) => each(`${path}[${k}]`, type.element, plus(at, k)));
    case "matrix":
      return range(type.columns * type.rows, (k) =>
        each(`${path}[${Math.floor(k / type.rows)}][${k % type.rows}]`, type.element, plus(at, k)),
      );
    case "array": {
      const i = `pm_i${depth}`;
      const step = `${at} + ${i} * ${wordsOf(type.element)}u`;
      return `for (var ${i} = 0u; ${i} < ${type.length}u; ${i}++) { ${forEachWord(`${path}[${i}]`, type.element, step, each, depth + 1)} }`;
    }
    case "struct": {
      let offset = 0;
      return type.members
        .map(([name, member]) => {
          const text = forEachWord(`${path}.${name}`, member, plus(at, offset), each, depth);
          offset += wordsOf(member);
          return text;
        })
        .join(" ");
    }
    default:
      return type satisfies never;
  }
}

function range(count: number, make: (k: number) => string): string {
  return Array.from({ length: count }, (_, k) => make(k)).join(" ");
}

function plus(at: string, words: number): string {
  return words === 0 ? at : `${at} + ${words}u`;
}

function toWord(scalar: string, value: string): string {
  switch (scalar) {
    case "u32":
      return value;
    case "bool":
      return `u32(${value})`;
    case "f16":
      return `bitcast<u32>(vec2<f16>(${value}, 0h))`;
    default:
      return `bitcast<u32>(${value})`;
  }
}

function fromWord(scalar: string, word: string): string {
  switch (scalar) {
    case "u32":
      return word;
    case "bool":
      return `${word} != 0u`;
    case "f16":
      return `bitcast<vec2<f16>>(${word}).x`;
    default:
      return `bitcast<${scalar}>(${word})`;
  }
}

/** Spans name frames, which hold other pages now: those that will be used are looked up again. */
function restoreSpans({ name, type, isLive }: KeptVariable): string {
  const text = spansAnew(name, type, 0);
  return text === "" || isLive === undefined ? text : `if (${isLive}) { ${text} }`;
}

function spansAnew(path: string, type: WgslType, depth: number): string {
  if (type.kind === "struct" && type.name === "PmSpan") {
    return `${path} = pm_span(${path}.addr, ${path}.words);`;
  }
  if (type.kind === "struct") {
    return type.members.map(([name, member]) => spansAnew(`${path}.${name}`, member, depth)).join("");
  }
  if (type.kind === "array") {
    const inner = spansAnew(`${path}[pm_i${depth}]`, type.element, depth + 1);
    return inner === ""
      ? ""
      : `for (var pm_i${depth} = 0u; pm_i${depth} < ${type.length}u; pm_i${depth}++) { ${inner} }`;
  }
  return "";
}
