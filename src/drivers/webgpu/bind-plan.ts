/** From what a dispatch names to checked ranges of one address space. */
import {
  formatRange,
  KernelError,
  pageAlignDown,
  pageAlignUp,
  type VirtAddr,
  type VirtRange,
} from "../../base/index.ts";
import { type AddressSpace, Mapping, type MappingRange, notAMapping } from "../../mm/index.ts";
import { bindConflict } from "./extent-table.ts";
import type { GpuLimits } from "./gpu-handle.ts";
import type { KernelBinding, KernelReflection } from "./reflect.ts";

/** What a variable is bound to: a whole mapping or a part. */
export type BindTarget = Mapping | MappingRange;

/** One variable with its memory. */
export interface BoundRange {
  readonly binding: KernelBinding;
  readonly mapping: Mapping;
  /** First byte bound. */
  readonly start: VirtAddr;
  /** Bytes bound, a multiple of 4. */
  readonly bytes: number;
  /** The pages that hold them. */
  readonly pages: VirtRange;
  readonly write: boolean;
}

/** The bindings of a dispatch. */
export interface BindPlan {
  readonly mm: AddressSpace | undefined;
  readonly ranges: readonly BoundRange[];
}

/** A file's last bytes are followed by zeros: the device sees them up to the next multiple of this. */
const TAIL_ALIGNMENT = 16;

/** True for the uniform variable that `params` fills. */
export function isParams(binding: KernelBinding): boolean {
  return binding.kind === "uniform" && binding.name === "params";
}

/**
 * Checks a dispatch's bindings against the kernel.
 *
 * @throws KernelError EINVAL a variable without memory or the other way round, too little memory, a bad offset, over the
 *   adapter's binding limit, memory of two address spaces, one piece of memory bound twice and written
 */
export function planBindings(
  reflection: KernelReflection,
  bind: Readonly<Record<string, BindTarget>>,
  limits: GpuLimits,
  op: string,
): BindPlan {
  const wanted = reflection.bindings.filter((binding) => !isParams(binding));
  const names = () => wanted.map((binding) => binding.name).join(", ") || "none";
  for (const name of Object.keys(bind)) {
    if (!wanted.some((binding) => binding.name === name)) {
      throw new KernelError(
        "EINVAL",
        op,
        `${reflection.entryPoint} uses no variable "${name}": its variables are: ${names()}`,
      );
    }
  }
  const ranges = wanted.map((binding) => {
    const target = Object.hasOwn(bind, binding.name) ? bind[binding.name] : undefined;
    if (target === undefined) {
      throw new KernelError(
        "EINVAL",
        op,
        `the variable ${binding.name} (${binding.typeName}) is not bound: its variables are: ${names()}`,
      );
    }
    return boundRange(binding, target, limits, op);
  });
  const [first] = ranges;
  for (const range of ranges) {
    if (range.mapping.mm !== first.mapping.mm) {
      throw new KernelError(
        "EINVAL",
        op,
        `${range.binding.name} is bound to a mapping of another address space than ${first.binding.name}: bind mappings of one`,
      );
    }
  }
  checkAliases(ranges);
  return { mm: first?.mapping.mm, ranges };
}

/** The mapping that a target is of. @throws KernelError EINVAL it is neither a mapping nor a part; `what` it was given for */
export function mappingOf(target: BindTarget, op: string, what: string): Mapping {
  const mapping = target instanceof Mapping ? target : (target as MappingRange | null)?.mapping;
  if (!(mapping instanceof Mapping)) {
    throw notAMapping(op, what);
  }
  return mapping;
}

function boundRange(binding: KernelBinding, target: BindTarget, limits: GpuLimits, op: string): BoundRange {
  const { name } = binding;
  const mapping = mappingOf(target, op, name);
  const { start, end } = target;
  const alignment = limits.minStorageBufferOffsetAlignment;
  if ((start - mapping.start) % alignment !== 0) {
    throw new KernelError(
      "EINVAL",
      op,
      `${name} is bound at byte ${start - mapping.start} of ${mapping.name}: use a multiple of ${alignment}`,
    );
  }
  const tail = end === mapping.end ? TAIL_ALIGNMENT : 4;
  const visible = Math.ceil((end - start) / tail) * tail;
  if (end !== mapping.end && visible !== end - start) {
    throw new KernelError(
      "EINVAL",
      op,
      `${name} is bound to ${end - start} bytes of ${mapping.name}: use a multiple of 4`,
    );
  }
  if (visible < binding.minBytes) {
    throw new KernelError(
      "EINVAL",
      op,
      `${name} is ${binding.typeName} and takes at least ${binding.minBytes} bytes, ${mapping.name} gives ${end - start}`,
    );
  }
  const bytes = binding.stride === undefined ? Math.ceil(binding.minBytes / 4) * 4 : visible;
  if (bytes > limits.maxStorageBufferBindingSize) {
    throw new KernelError(
      "EINVAL",
      op,
      `${name} is bound to ${bytes} bytes, this adapter binds at most ${limits.maxStorageBufferBindingSize}: bind a smaller range of ${mapping.name} and dispatch in parts`,
    );
  }
  const pages = { start: pageAlignDown(start), end: pageAlignUp(start + bytes) };
  return { binding, mapping, start, bytes, pages, write: binding.kind === "storage-read-write" };
}

/** WebGPU lets a dispatch see one piece of memory through two variables only when it writes through neither. */
function checkAliases(ranges: readonly BoundRange[]): void {
  for (const [i, a] of ranges.entries()) {
    for (const b of ranges.slice(i + 1)) {
      if ((a.write || b.write) && a.pages.start < b.pages.end && b.pages.start < a.pages.end) {
        throw bindConflict(describe(a), describe(b));
      }
    }
  }
}

function describe(range: BoundRange): string {
  return `${range.binding.name} (${range.mapping.name} ${formatRange({ start: range.start, end: range.start + range.bytes })})`;
}
