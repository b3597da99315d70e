/** What the second texts of a kernel's functions share: what they keep, and what they call it. */
import type { FnElem } from "wesl";
import type { BoundWrites } from "./bound-writes.ts";
import type { WgslType } from "./infer-type.ts";
import type { ParsedKernel } from "./parse-kernel.ts";

/** A variable that is kept from one run to the next. */
export interface KeptVariable {
  readonly name: string;
  readonly type: WgslType;
  /** A condition that is false where nothing depends on it. */
  readonly isLive?: string;
}

/** Why a kernel has no resume points. */
export class NotResumable extends Error {}

/** What the texts of functions need of the whole. */
export interface ResumeContext {
  readonly kernel: ParsedKernel;
  /** What it does to variables of its own. */
  readonly bound: BoundWrites | undefined;
  readonly loopCheck: string;
  /** An expression: nothing stands against leaving here. */
  readonly ready: string;
  /** The variables that are to be kept, in addition to those of the kernel's own. */
  readonly kept: KeptVariable[];
}

/** The name of a function's second text. */
export function resumableName(fn: FnElem): string {
  return `pm_r_${fn.name.ident.originalName}`;
}

/** Where a function was left: 0 nowhere, else the number of a place. */
export function placeVariable(fn: FnElem): string {
  return `pm_at_${fn.name.ident.originalName}`;
}

/** Where a parameter of a function with resume points is. */
export function paramVariable(fn: FnElem, index: number): string {
  return `pm_p${index}_${fn.name.ident.originalName}`;
}
