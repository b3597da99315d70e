/** Bind groups, made once for what dispatch after dispatch, or round after round, binds. */
import type { CompiledKernel } from "./compile.ts";
import type { WebGpuDevice } from "./device.ts";
import type { PlacedRange } from "./place.ts";
import type { KernelBinding } from "./reflect.ts";

/** Of one layout, the last ones that were made. */
const KEPT = 16;

/** Size of what goes to the end of its buffer. */
const TO_END = 0;

interface Made {
  readonly buffers: readonly GPUBuffer[];
  readonly offsets: readonly number[];
  readonly sizes: readonly number[];
  readonly group: GPUBindGroup;
}

/**
 * Those of one device. A group is named piece by piece, in one run from {@link begin} to {@link end}: one that was made before
 * is found without making anything.
 */
export class BindGroups {
  readonly #device: GPUDevice;
  /** By layout, which goes with its kernel. */
  #made = new WeakMap<GPUBindGroupLayout, Made[]>();
  /** What is named so far: the first {@link #count} of each. */
  readonly #bindings: number[] = [];
  readonly #buffers: GPUBuffer[] = [];
  readonly #offsets: number[] = [];
  readonly #sizes: number[] = [];
  #count = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  begin(): this {
    this.#count = 0;
    return this;
  }

  /** The next binding, those of a layout always in the same order: a buffer from `offset` on, all of it unless `size` is given. */
  add(binding: number, buffer: GPUBuffer, offset = 0, size = TO_END): this {
    const i = this.#count++;
    this.#bindings[i] = binding;
    this.#buffers[i] = buffer;
    this.#offsets[i] = offset;
    this.#sizes[i] = size;
    return this;
  }

  /** The group of what was added. */
  end(layout: GPUBindGroupLayout): GPUBindGroup {
    let made = this.#made.get(layout);
    if (made === undefined) {
      made = [];
      this.#made.set(layout, made);
    }
    for (let i = made.length - 1; i >= 0; i--) {
      if (this.#isSame(made[i])) {
        return made[i].group;
      }
    }
    if (made.length === KEPT) {
      made.shift();
    }
    const group = this.#make(layout);
    made.push({
      buffers: this.#buffers.slice(0, this.#count),
      offsets: this.#offsets.slice(0, this.#count),
      sizes: this.#sizes.slice(0, this.#count),
      group,
    });
    return group;
  }

  #isSame({ buffers, offsets, sizes }: Made): boolean {
    for (let i = 0; i < this.#count; i++) {
      if (buffers[i] !== this.#buffers[i] || offsets[i] !== this.#offsets[i] || sizes[i] !== this.#sizes[i]) {
        return false;
      }
    }
    return true;
  }

  #make(layout: GPUBindGroupLayout): GPUBindGroup {
    const entries = this.#bindings.slice(0, this.#count).map((binding, i) => {
      const [buffer, offset, size] = [this.#buffers[i], this.#offsets[i], this.#sizes[i]];
      return { binding, resource: size === TO_END ? { buffer, offset } : { buffer, offset, size } };
    });
    return this.#device.createBindGroup({ label: layout.label, layout, entries });
  }

  /** Forgets all, and the buffers with them. */
  clear(): void {
    this.#made = new WeakMap();
    this.#buffers.length = 0;
    this.#count = 0;
  }
}

/** The bind group of a kernel's own variables, for commands about to be recorded; undefined when that group has none. */
export function bindVariables(
  device: WebGpuDevice,
  { groupLayouts, reflection }: Pick<CompiledKernel, "groupLayouts" | "reflection">,
  group: number,
  uniform: GPUBuffer | undefined,
  placed: readonly PlacedRange[],
): GPUBindGroup | undefined {
  let isEmpty = true;
  device.groups.begin();
  for (const variable of reflection.bindings) {
    if (variable.group === group) {
      isEmpty = false;
      bindVariable(device, variable, uniform, placed);
    }
  }
  return isEmpty ? undefined : device.groups.end(groupLayouts[group]);
}

function bindVariable(
  { groups, gpu }: WebGpuDevice,
  variable: KernelBinding,
  uniform: GPUBuffer | undefined,
  placed: readonly PlacedRange[],
): void {
  for (const { bound, extent } of placed) {
    if (bound.binding === variable) {
      const { buffer } = extent.buffer;
      if (bound.write) {
        gpu.direct?.noteGpuWrite(buffer);
      }
      groups.add(variable.binding, buffer, extent.bufferOffset + (bound.start - extent.start), bound.bytes);
      return;
    }
  }
  if (uniform !== undefined) {
    groups.add(variable.binding, uniform);
  }
}
