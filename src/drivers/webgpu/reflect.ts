/** What a WGSL kernel wants to have bound: read from its source. */
import { KernelError } from "../../base/index.ts";
import { type ParamsLayout, paramsLayout } from "./params-layout.ts";
import {
  type Declarations,
  type FunctionDeclaration,
  reachableNames,
  readDeclarations,
  type VariableDeclaration,
} from "./wgsl/declarations.ts";
import { Layouts, type WgslType } from "./wgsl/layout.ts";
import { UnreadableWgsl } from "./wgsl/tokens.ts";

/** How a kernel uses a buffer. */
export type BindingKind = "storage-read" | "storage-read-write" | "uniform";

/** One buffer variable that the entry point uses. */
export interface KernelBinding {
  readonly name: string;
  readonly group: number;
  readonly binding: number;
  readonly kind: BindingKind;
  /** The least number of bytes that may be bound: with one element of a runtime-sized array. */
  readonly minBytes: number;
  /** Bytes from one element of the runtime-sized array to the next; undefined when the size is fixed. */
  readonly stride: number | undefined;
  readonly typeName: string;
}

/** A kernel's entry point and what it uses. */
export interface KernelReflection {
  readonly entryPoint: string;
  /** Every compute entry point of the source. */
  readonly entryPoints: readonly string[];
  readonly workgroupSize: readonly [number, number, number];
  /** By group, then binding. */
  readonly bindings: readonly KernelBinding[];
  /** The layout of the uniform variable `params`; undefined when the entry point uses none. */
  readonly params: ParamsLayout | undefined;
}

/**
 * Reads a kernel's source, which a WebGPU implementation has already compiled without error.
 *
 * Errors: EINVAL when there is no compute entry point, several and none is named, or none of that name, when an override that it
 * uses has no value, and when a variable
 * that it uses has no place or another's; ENOTSUP when the
 * entry point uses something else than storage buffers and the uniform `params`, or the source says something that cannot be read.
 */
export function reflectKernel(wgsl: string, entryPoint?: string, op = "kernel"): KernelReflection {
  try {
    return reflect(readDeclarations(wgsl), entryPoint, op);
  } catch (error) {
    if (!(error instanceof UnreadableWgsl)) {
      throw error;
    }
    throw new KernelError(
      "ENOTSUP",
      op,
      `the WGSL compiles but its bindings cannot be read (${error.message}): write that part in a simpler way`,
      { cause: error },
    );
  }
}

function reflect(module: Declarations, entryPoint: string | undefined, op: string): KernelReflection {
  const entries = [...module.functions.values()].filter((fn) => fn.attributes.has("compute"));
  const entry = chooseEntry(entries, entryPoint, op);
  const layouts = new Layouts(module);
  const used = reachableNames(module, entry.name);
  const sizes = entry.attributes.get("workgroup_size") ?? [];
  for (const name of module.unset) {
    if (used.has(name) || sizes.some((phrase) => phrase.some((token) => token.text === name))) {
      const why = `the override ${name} has no value: write one, override ${name} = 1; it cannot be given from outside`;
      throw new KernelError("EINVAL", op, why);
    }
  }
  const bindings: KernelBinding[] = [];
  let params: ParamsLayout | undefined;
  for (const variable of module.variables) {
    if (used.has(variable.name) && variable.space !== "private" && variable.space !== "workgroup") {
      const kind = kindOf(variable, layouts, op);
      const type = layouts.typeOf(variable.type);
      bindings.push(bindingOf(variable, kind, type, layouts, op));
      if (kind === "uniform") {
        params = paramsLayout(type, op);
      }
    }
  }
  bindings.sort((a, b) => a.group - b.group || a.binding - b.binding);
  refuseSharedPlace(bindings, op);
  const [x = 1, y = 1, z = 1] = sizes.map((size) => layouts.value(size));
  return {
    entryPoint: entry.name,
    entryPoints: entries.map((fn) => fn.name),
    workgroupSize: [x, y, z],
    bindings,
    params,
  };
}

/** Refuses two variables at one place, of `bindings` in their order: layouts are made before the GPU has seen the text. */
function refuseSharedPlace(bindings: readonly KernelBinding[], op: string): void {
  for (const [i, { name, group, binding }] of bindings.entries()) {
    const before = bindings[i - 1];
    if (before?.group === group && before.binding === binding) {
      throw new KernelError(
        "EINVAL",
        op,
        `${before.name} and ${name} are both at @group(${group}) @binding(${binding}): give each a binding of its own`,
      );
    }
  }
}

function chooseEntry(
  entries: readonly FunctionDeclaration[],
  name: string | undefined,
  op: string,
): FunctionDeclaration {
  const list = entries.map((fn) => fn.name).join(", ");
  if (entries.length === 0) {
    throw new KernelError(
      "EINVAL",
      op,
      "the WGSL has no @compute entry point: add @compute @workgroup_size(64) to a function",
    );
  }
  if (name === undefined) {
    const [only, ...others] = entries;
    if (only === undefined || others.length > 0) {
      throw new KernelError("EINVAL", op, `the WGSL has several @compute entry points (${list}): name one of them`);
    }
    return only;
  }
  const found = entries.find((fn) => fn.name === name);
  if (found === undefined) {
    throw new KernelError("EINVAL", op, `the WGSL has no @compute entry point "${name}": there is ${list}`);
  }
  return found;
}

function bindingOf(
  { name, attributes, type: phrase }: VariableDeclaration,
  kind: BindingKind,
  type: WgslType,
  layouts: Layouts,
  op: string,
): KernelBinding {
  const numberOf = (attribute: string) => {
    const [value] = attributes.get(attribute) ?? [];
    if (value === undefined) {
      throw new KernelError("EINVAL", op, `${name} has no @${attribute}: write @group(0) @binding(N) before it`);
    }
    return layouts.value(value);
  };
  return {
    name,
    group: numberOf("group"),
    binding: numberOf("binding"),
    kind,
    minBytes: minBytesOf(type),
    stride: runtimeStride(type),
    typeName: layouts.nameOf(phrase),
  };
}

function kindOf({ name, space, access, type }: VariableDeclaration, layouts: Layouts, op: string): BindingKind {
  switch (space) {
    case "uniform":
      if (name !== "params") {
        throw new KernelError(
          "ENOTSUP",
          op,
          `${name} is a uniform variable: name it params, or make it var<storage, read>`,
        );
      }
      return "uniform";
    case "storage":
      return access === "read_write" || access === "write" ? "storage-read-write" : "storage-read";
    default:
      throw new KernelError(
        "ENOTSUP",
        op,
        `variable ${name} is a ${layouts.nameOf(type)}: kernels use storage and uniform buffers only`,
      );
  }
}

/** Bytes from one element to the next of the array without a size that this type is, or ends in. */
function runtimeStride(type: WgslType): number | undefined {
  if (type.kind === "array") {
    return type.count === undefined ? type.stride : undefined;
  }
  const last = type.kind === "struct" ? type.members.at(-1) : undefined;
  return last === undefined ? undefined : runtimeStride(last.type);
}

function minBytesOf(type: WgslType): number {
  const stride = runtimeStride(type);
  if (stride === undefined) {
    return type.size;
  }
  const last = type.kind === "struct" ? type.members.at(-1) : undefined;
  return last === undefined ? stride : Math.ceil((last.offset + stride) / type.align) * type.align;
}
