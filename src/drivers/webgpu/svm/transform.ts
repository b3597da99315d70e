/** Rewrites a kernel for svm mode: an ordinary function, called by a generated entry point. */
import type { FnElem, FnParamElem, StructElem } from "wesl";
import { KernelError } from "../../../base/index.ts";
import { type KernelReflection, reflectKernel } from "../reflect.ts";
import { analyseKernel, isCollective, type KernelAnalysis, REPLAY_RECORDS } from "./analyse-kernel.ts";
import { type BoundWrites, boundWrites } from "./bound-writes.ts";
import {
  BUILTINS,
  checkedEntry,
  type EntryShape,
  PASSED_BUILTINS,
  quickEntry,
  residentEntry,
  residentLinearEntry,
} from "./entry.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import { everything, type ParsedKernel, parseKernel, plainNames } from "./parse-kernel.ts";
import { resetPrivate, resetWorkgroup } from "./reset-memory.ts";
import { resumingEntry } from "./resume-entry.ts";
import { type ResumeText, resumeText } from "./resume-state.ts";
import { checkedRuntime, guardedRuntime, quickRuntime, scoutRuntime } from "./runtime-checked.ts";
import { loopCheck, noteSeen, quickLoopCheck } from "./runtime-faults.ts";
import { residentLoopCheck, residentRuntime } from "./runtime-resident.ts";
import { scoutEntry } from "./scout.ts";
import type { EditedText, Edits } from "./source-text.ts";

/** Which pipeline a text is for. */
export type PipelineKind = "checked" | "scout" | "quick" | "guarded" | "resident" | "resident-linear" | "resuming";

/** A kernel, rewritten. */
export interface TransformedKernel {
  /** Of the user's own bindings, parameters and workgroup size. */
  readonly reflection: KernelReflection;
  readonly features: KernelFeatures;
  /** The bind group of the runtime: the one after the user's last. */
  readonly runtimeGroup: number;
  /** The user's text comes first, with its lines as they were. "resuming": of a kernel that has resume points. */
  text(kind: PipelineKind): TransformedText;
  /** The kernel's resume points, or why it has none. */
  resume(): ResumeText | string;
}

export interface TransformedText {
  readonly wgsl: string;
  /** The user's part, to find places of the source. */
  readonly user: EditedText;
}

/**
 * Rewrites a kernel.
 *
 * Errors: EINVAL with line and column for WGSL that does not parse, no or several entry points, names that are the
 * library's, calls of its functions with the wrong number of arguments; ENOTSUP for builtins and workgroup sizes that cannot
 * be rewritten, imports from elsewhere, and what {@link boundWrites} and {@link reflectKernel} refuse.
 */
export function transformKernel(wgsl: string, entryPoint?: string, op = "kernel"): TransformedKernel {
  const kernel = parseKernel(wgsl, op);
  const reflection = reflectKernel(plainNames(kernel).apply(wgsl).text, entryPoint, op);
  const entry = kernel.functions.get(reflection.entryPoint);
  if (entry === undefined) {
    throw new KernelError("EINVAL", op, `the WGSL has no function "${reflection.entryPoint}"`);
  }
  const found = analyseKernel(kernel, entry);
  const bound = boundWrites(kernel, reflection, found.reached, found.collective);
  const analysis = { ...found, features: withBound(found.features, bound) };
  const shape = shapeOf(kernel, entry, reflection, analysis);
  const runtimeGroup = Math.max(0, ...reflection.bindings.map((binding) => binding.group + 1));
  let resumed: ResumeText | string | undefined;
  const resume = () => {
    resumed ??= resumeText(kernel, analysis, entry, bound);
    return resumed;
  };
  return {
    reflection,
    features: analysis.features,
    runtimeGroup,
    text: (kind) => textFor(kind, { kernel, entry, analysis, bound, shape, group: runtimeGroup, resume }),
    resume,
  };
}

interface Parts {
  readonly kernel: ParsedKernel;
  readonly entry: FnElem;
  readonly analysis: KernelAnalysis;
  readonly bound: BoundWrites | undefined;
  readonly shape: EntryShape;
  readonly group: number;
  resume(): ResumeText | string;
}

function textFor(kind: PipelineKind, parts: Parts): TransformedText {
  const { kernel, entry, analysis, bound, group } = parts;
  const edits = plainNames(kernel);
  makePlainFunction(kernel, entry, edits);
  const isThorough = kind === "checked" || kind === "resuming";
  const isQuick = kind === "scout" || kind === "quick" || kind === "guarded";
  const check = isThorough ? loopCheck : isQuick ? () => quickLoopCheck : residentLoopCheck;
  for (const fn of analysis.reached) {
    injectLoopChecks(kernel, fn, analysis, check, edits);
  }
  if (isThorough || isQuick) {
    bound?.edit(edits);
  }
  const user = edits.apply(kernel.source.text);
  const { features } = analysis;
  const runtime = isThorough
    ? `${checkedRuntime(features, group, kind === "resuming")}\n${bound?.wgsl ?? ""}`
    : RUNTIMES[kind](features, group);
  return { wgsl: `${user.text}\n${runtime}\n${entryText(kind, parts)}`, user };
}

const RUNTIMES = {
  scout: scoutRuntime,
  quick: quickRuntime,
  guarded: guardedRuntime,
  resident: residentRuntime,
  "resident-linear": residentRuntime,
};

function entryText(kind: PipelineKind, { shape, analysis: { features }, resume }: Parts): string {
  switch (kind) {
    case "checked":
      return checkedEntry(shape, features);
    case "scout":
      return scoutEntry(shape);
    case "quick":
      return quickEntry(shape, features);
    case "guarded":
      return quickEntry(shape, features, noteSeen);
    case "resident":
      return residentEntry(shape);
    case "resident-linear":
      return residentLinearEntry(shape);
    case "resuming": {
      const text = resume();
      return typeof text === "string" ? "" : `${text.wgsl}\n${resumingEntry(shape, features, text)}`;
    }
    default:
      return kind satisfies never;
  }
}

function withBound(features: KernelFeatures, bound: BoundWrites | undefined): KernelFeatures {
  const { deferred = false, recorded = 0, reread = [] } = bound ?? {};
  const replayRecords = Math.min(features.replayRecords + recorded, REPLAY_RECORDS);
  return { ...features, replayRecords, defersBound: deferred, reread };
}

function shapeOf(
  kernel: ParsedKernel,
  entry: FnElem,
  reflection: KernelReflection,
  analysis: KernelAnalysis,
): EntryShape {
  const passed = new Map<string, string>();
  const args = entry.params.map((param) => argumentFor(kernel, param, passed));
  const [x, y, z] = reflection.workgroupSize;
  return {
    name: reflection.entryPoint,
    sizeAttribute: sizeAttribute(kernel, entry),
    invocations: x * y * z,
    workgroupSize: reflection.workgroupSize,
    args,
    passed,
    resetPrivate: resetPrivate(kernel, analysis.variables),
    resetWorkgroup: resetWorkgroup(kernel, analysis.variables),
  };
}

function sizeAttribute(kernel: ParsedKernel, entry: FnElem): string {
  const overrides = new Set(
    kernel.module.decls.flatMap((decl) => (decl.kind === "override" ? [decl.name.decl.ident.originalName] : [])),
  );
  for (const attribute of entry.attributes ?? []) {
    if (attribute.attribute.kind !== "@attribute" || attribute.attribute.name !== "workgroup_size") {
      continue;
    }
    const named = kernel.source.slice(attribute).match(/[\p{XID_Start}_]\p{XID_Continue}*/gu) ?? [];
    const override = named.find((name) => overrides.has(name));
    if (override !== undefined) {
      throw kernel.source.error(
        "ENOTSUP",
        attribute.start,
        `@workgroup_size(${override}): an override is not known here: use const`,
      );
    }
    return kernel.source.slice(attribute);
  }
  throw kernel.source.error("EINVAL", entry.start, "the entry point has no @workgroup_size: add @workgroup_size(64)");
}

function argumentFor(kernel: ParsedKernel, param: FnParamElem, passed: Map<string, string>): string {
  const builtin = builtinOf(param);
  if (builtin !== undefined) {
    return builtinValue(kernel, builtin, param.start, passed);
  }
  const type = param.name.typeRef;
  const struct: StructElem | undefined = kernel.structs.get(type?.name.originalName ?? "");
  if (type === undefined || struct === undefined) {
    throw kernel.source.error(
      "EINVAL",
      param.start,
      `parameter ${param.name.decl.ident.originalName} of the entry point has no @builtin(…)`,
    );
  }
  const members = struct.members.map((member) => {
    const name = builtinOf(member);
    if (name === undefined) {
      throw kernel.source.error("EINVAL", member.start, `member ${member.name.name} has no @builtin(…)`);
    }
    return builtinValue(kernel, name, member.start, passed);
  });
  return `${kernel.source.slice(type)}(${members.join(", ")})`;
}

function builtinOf(elem: Pick<FnParamElem, "attributes">): string | undefined {
  for (const { attribute } of elem.attributes ?? []) {
    if (attribute.kind === "@builtin") {
      return attribute.param.name;
    }
  }
  return undefined;
}

function builtinValue(kernel: ParsedKernel, builtin: string, at: number, passed: Map<string, string>): string {
  const own = BUILTINS.get(builtin);
  if (own !== undefined) {
    return own;
  }
  const type = PASSED_BUILTINS.get(builtin);
  if (type === undefined) {
    const known = [...BUILTINS.keys(), ...PASSED_BUILTINS.keys()].join(", ");
    throw kernel.source.error("ENOTSUP", at, `@builtin(${builtin}) is not known in svm mode: there is ${known}`);
  }
  passed.set(builtin, type);
  return `pm_in_${builtin}`;
}

/** Takes away what makes it an entry point. */
function makePlainFunction(kernel: ParsedKernel, entry: FnElem, edits: Edits): void {
  const { text } = kernel.source;
  for (const attribute of entry.attributes ?? []) {
    if (attribute.attribute.kind === "@attribute" && /^(compute|workgroup_size)$/.test(attribute.attribute.name)) {
      edits.blank(text, attribute);
    }
  }
  for (const param of entry.params) {
    for (const attribute of param.attributes ?? []) {
      edits.blank(text, attribute);
    }
  }
}

function injectLoopChecks(
  kernel: ParsedKernel,
  fn: FnElem,
  analysis: KernelAnalysis,
  check: (features: KernelFeatures, together: boolean) => string,
  edits: Edits,
): void {
  const { features, collective } = analysis;
  const { text } = kernel.source;
  let loops = false;
  for (const elem of everything(fn)) {
    if (elem.kind !== "for" && elem.kind !== "while" && elem.kind !== "loop") {
      continue;
    }
    const brace = text.indexOf("{", elem.body.start) + 1;
    const statements = check(features, features.collective && isCollective(kernel, elem, collective));
    loops ||= statements !== "";
    edits.insert(brace, statements);
  }
  // A loop that only returned can now be left, and the end of the function reached.
  if (loops && fn.returnType !== undefined && fn.body.body.at(-1)?.kind !== "return") {
    edits.insert(fn.body.end - 1, ` return ${text.slice(fn.returnType.start, fn.returnType.end)}(); `);
  }
}
