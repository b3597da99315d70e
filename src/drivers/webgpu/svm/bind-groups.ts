/** Bind groups of whole buffers, made once for the buffers that round after round binds. */

/** The last ones that were made. */
const KEPT = 16;

interface Made {
  readonly layout: GPUBindGroupLayout;
  readonly buffers: readonly GPUBuffer[];
  readonly group: GPUBindGroup;
}

/** Those of one device. */
export class BindGroups {
  readonly #device: GPUDevice;
  #made: Made[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A group of these buffers, at bindings 0, 1, … of the layout. */
  of(layout: GPUBindGroupLayout, buffers: readonly GPUBuffer[]): GPUBindGroup {
    const there = this.#made.find(
      (made) => made.layout === layout && made.buffers.every((buffer, binding) => buffer === buffers[binding]),
    );
    if (there !== undefined) {
      return there.group;
    }
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const group = this.#device.createBindGroup({ label: layout.label, layout, entries });
    this.#made = [...this.#made.slice(1 - KEPT), { layout, buffers, group }];
    return group;
  }

  /** Forgets all, and the buffers with them. */
  clear(): void {
    this.#made = [];
  }
}
