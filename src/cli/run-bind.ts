/** Fits mappings to the variables of a kernel. */
import { KernelError } from "../base/index.ts";
import type { KernelBinding, KernelReflection } from "../drivers/webgpu/index.ts";
import type { MapPlan } from "./run-plan.ts";

/** One mapping and the piece of it that the kernel sees. */
export interface BindPlan {
  readonly map: MapPlan;
  readonly binding: KernelBinding;
  /** Bytes bound, from the mapping's start. */
  readonly length: number;
  readonly written: boolean;
}

/** Bytes that the device sees of a mapping: zeros follow up to the next 16. */
export function visibleLength(length: number): number {
  return Math.ceil(length / 16) * 16;
}

const isParams = (binding: KernelBinding) => binding.name === "params" && binding.kind === "uniform";

function bindOne(map: MapPlan, binding: KernelBinding): BindPlan {
  const op = `map ${map.name}`;
  const written = binding.kind === "storage-read-write";
  if (written && map.file?.mode === "r") {
    const { path } = map.file;
    const why = `the kernel writes ${map.name} and ${path} is mapped read-only: map it :cow for a private copy, or :rw to change the file`;
    throw new KernelError("EACCES", op, why);
  }
  if (written && map.url !== undefined) {
    const why = `the kernel writes ${map.name} and a URL is mapped read-only: download it and map the file :cow or :rw`;
    throw new KernelError("EACCES", op, why);
  }
  const visible = visibleLength(map.length);
  if (visible < binding.minBytes) {
    const isNew = map.file === undefined && map.url === undefined;
    const remedy = isNew ? `use new:${binding.minBytes}` : "map a longer one";
    const why = `${map.name} is ${binding.typeName} and takes at least ${binding.minBytes} bytes, not ${map.length}: ${remedy}`;
    throw new KernelError("EINVAL", op, why);
  }
  return { map, binding, length: binding.stride === undefined ? binding.minBytes : visible, written };
}

/**
 * Pairs every variable of the kernel with the mapping of its name.
 *
 * Errors: EINVAL for a mapping without a variable, a variable without a mapping, a mapping that is too short; EACCES for a
 * variable that the kernel writes over a read-only mapping.
 */
export function planBindings(reflection: KernelReflection, maps: readonly MapPlan[]): BindPlan[] {
  const bindings = reflection.bindings.filter((binding) => !isParams(binding));
  const names = bindings.map(({ name }) => name).join(", ") || "none";
  for (const { name } of maps) {
    if (reflection.bindings.some((binding) => isParams(binding) && binding.name === name)) {
      throw new KernelError("EINVAL", `map ${name}`, "the uniform params is filled with --set NAME=VALUE, not mapped");
    }
    if (!bindings.some((binding) => binding.name === name)) {
      const why = `${reflection.entryPoint} uses no variable "${name}": its variables are: ${names}`;
      throw new KernelError("EINVAL", `map ${name}`, why);
    }
  }
  return bindings.map((binding) => {
    const map = maps.find(({ name }) => name === binding.name);
    if (map === undefined) {
      const { name, typeName } = binding;
      const why = `the kernel's variable ${name} (${typeName}) has no mapping: add --map ${name}=PATH or --map ${name}=new:SIZE`;
      throw new KernelError("EINVAL", "run", why);
    }
    return bindOne(map, binding);
  });
}

/**
 * The workgroups of a run that names none: along x, one invocation for each element of the longest runtime-sized array.
 * @throws KernelError EINVAL when that is more than the device takes.
 */
export function defaultWorkgroups(
  { workgroupSize }: KernelReflection,
  binds: readonly BindPlan[],
  most: number,
): [number, number, number] {
  const elements = Math.max(
    1,
    ...binds.map(({ binding, map }) => (binding.stride === undefined ? 1 : Math.ceil(map.length / binding.stride))),
  );
  const [x, y, z] = workgroupSize;
  const groups = Math.ceil(elements / (x * y * z));
  if (groups > most) {
    const why = `one invocation for each of ${elements} elements takes ${groups} workgroups and the device allows ${most}: give --workgroups, and let each invocation take several elements`;
    throw new KernelError("EINVAL", "run", why);
  }
  return [groups, 1, 1];
}

/** @throws KernelError EINVAL when a dimension is over the device's limit. */
export function checkWorkgroups(workgroups: readonly number[], most: number): void {
  const over = workgroups.find((count) => count > most);
  if (over !== undefined) {
    const why = `--workgroups ${workgroups.join(",")}: the device allows ${most} a dimension: spread them over X,Y,Z, or let each invocation take several elements`;
    throw new KernelError("EINVAL", "run", why);
  }
}
