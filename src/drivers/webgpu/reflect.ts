/** What a WGSL kernel wants to have bound: read from its source. */
import {
  ArrayInfo,
  type FunctionInfo,
  ResourceType,
  StructInfo,
  type TypeInfo,
  type VariableInfo,
  WgslReflect,
} from "wgsl_reflect/wgsl_reflect.module.js";
import { KernelError } from "../../base/index.ts";
import { type ParamsLayout, paramsLayout } from "./params-layout.ts";
import { reachableNames, simplified, withoutComments } from "./wgsl-source.ts";

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
 * Errors: EINVAL when there is no compute entry point, several and none is named, or none of that name; ENOTSUP when the
 * entry point uses something else than buffers, or the source says something that cannot be read.
 */
export function reflectKernel(wgsl: string, entryPoint?: string, op = "kernel"): KernelReflection {
  const text = withoutComments(wgsl);
  const source = parse(simplified(text), op);
  const entry = chooseEntry(source.entry.compute, entryPoint, op);
  const used = reachableNames(text, entry.name);
  const resources = [
    ...source.uniforms,
    ...source.storage,
    ...source.textures,
    ...source.samplers,
    ...source.immediates,
  ]
    .filter((variable) => used.has(variable.name))
    .sort((a, b) => a.group - b.group || a.binding - b.binding);
  const params = resources.find(
    (variable) => variable.name === "params" && variable.resourceType === ResourceType.Uniform,
  );
  const [x = 1, y = 1, z = 1] = entry.workgroupSize ?? [];
  return {
    entryPoint: entry.name,
    entryPoints: source.entry.compute.map((fn) => fn.name),
    workgroupSize: [x, y, z],
    bindings: resources.map((variable) => bindingOf(variable, op)),
    params: params === undefined ? undefined : paramsLayout(params.type, op),
  };
}

function parse(wgsl: string, op: string): WgslReflect {
  try {
    return new WgslReflect(wgsl);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new KernelError(
      "ENOTSUP",
      op,
      `the WGSL compiles but its bindings cannot be read (${why}): write that part in a simpler way`,
      { cause: error },
    );
  }
}

function chooseEntry(entries: readonly FunctionInfo[], name: string | undefined, op: string): FunctionInfo {
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

function bindingOf(variable: VariableInfo, op: string): KernelBinding {
  const { name, group, binding, type } = variable;
  const stride = runtimeStride(type);
  return {
    name,
    group,
    binding,
    kind: kindOf(variable, op),
    minBytes: minBytesOf(type),
    stride,
    typeName: type.getTypeName().replace(", 0>", ">"),
  };
}

function kindOf(variable: VariableInfo, op: string): BindingKind {
  switch (variable.resourceType) {
    case ResourceType.Uniform:
      return "uniform";
    case ResourceType.Storage:
      return variable.access === "read_write" || variable.access === "write" ? "storage-read-write" : "storage-read";
    default:
      throw new KernelError(
        "ENOTSUP",
        op,
        `variable ${variable.name} is a ${variable.type.getTypeName()}: kernels use storage and uniform buffers only`,
      );
  }
}

/** The array without a size that this type is, or ends in. */
function runtimeArray(type: TypeInfo): ArrayInfo | undefined {
  if (type instanceof ArrayInfo) {
    return type.count === 0 ? type : undefined;
  }
  const last = type instanceof StructInfo ? type.members.at(-1) : undefined;
  return last === undefined ? undefined : runtimeArray(last.type);
}

function runtimeStride(type: TypeInfo): number | undefined {
  return runtimeArray(type)?.stride;
}

function minBytesOf(type: TypeInfo): number {
  const stride = runtimeStride(type);
  if (stride === undefined) {
    return type.size;
  }
  const last = type instanceof StructInfo ? type.members.at(-1) : undefined;
  if (!(type instanceof StructInfo) || last === undefined) {
    return stride;
  }
  return Math.ceil((last.offset + stride) / type.align) * type.align;
}
