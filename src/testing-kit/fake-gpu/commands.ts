/** Commands of the fake device: recorded, checked and run when they are submitted. */
import type { FakeBuffer } from "./buffer.ts";
import type { FakeGpu } from "./gpu.ts";

const COPY_SRC = 4;
const COPY_DST = 8;

/** A kernel as a function: what the shader would do to the bytes that are bound. */
export type FakeKernel = (call: FakeDispatch) => void;

/** One dispatch. */
export interface FakeDispatch {
  readonly workgroups: readonly [number, number, number];
  /** The bytes bound at a binding of a group (0 unless told otherwise). */
  bytes(binding: number, group?: number): Uint8Array;
  /** The same as words. */
  words(binding: number, group?: number): Uint32Array;
}

/** A pipeline: the kernel of its entry point. */
export interface FakePipeline {
  readonly entryPoint: string;
  getBindGroupLayout(index: number): object;
}

/** What is bound to a group. */
export interface FakeBindGroup {
  readonly entries: readonly { readonly binding: number; readonly resource: GPUBufferBinding | FakeBuffer }[];
}

type Command = () => void;

/** @see GPUCommandEncoder */
export class FakeEncoder {
  readonly #gpu: FakeGpu;
  readonly #commands: Command[] = [];

  constructor(gpu: FakeGpu) {
    this.#gpu = gpu;
  }

  copyBufferToBuffer(from: FakeBuffer, fromOffset: number, to: FakeBuffer, toOffset: number, size: number): void {
    this.#commands.push(() => {
      if (!this.#usable(from, fromOffset, size, COPY_SRC) || !this.#usable(to, toOffset, size, COPY_DST)) {
        return;
      }
      to.bytes.set(from.bytes.subarray(fromOffset, fromOffset + size), toOffset);
    });
  }

  clearBuffer(buffer: FakeBuffer, offset = 0, size = buffer.size - offset): void {
    this.#commands.push(() => {
      if (this.#usable(buffer, offset, size, COPY_DST)) {
        buffer.bytes.fill(0, offset, offset + size);
      }
    });
  }

  beginComputePass(): FakePass {
    return new FakePass(this.#gpu, (command) => this.#commands.push(command));
  }

  finish(): { readonly run: Command } {
    return { run: () => this.#commands.forEach((command) => void command()) };
  }

  #usable(buffer: FakeBuffer, offset: number, size: number, usage: number): boolean {
    const fits = offset % 4 === 0 && size % 4 === 0 && offset >= 0 && offset + size <= buffer.size;
    const usable = buffer.isValid && !buffer.isDestroyed && buffer.mapState === "unmapped";
    const good = fits && usable && (buffer.usage & usage) !== 0;
    if (!good) {
      this.#gpu.refuse(
        `${size} bytes at ${offset} of buffer "${buffer.label}": ${buffer.size} bytes, usage ${buffer.usage}, ` +
          `${buffer.mapState}${buffer.isDestroyed ? ", destroyed" : ""}`,
      );
    }
    return good;
  }
}

/** @see GPUComputePassEncoder */
export class FakePass {
  readonly #gpu: FakeGpu;
  readonly #record: (command: Command) => void;
  readonly #groups = new Map<number, FakeBindGroup>();
  #pipeline: FakePipeline | undefined;

  constructor(gpu: FakeGpu, record: (command: Command) => void) {
    this.#gpu = gpu;
    this.#record = record;
  }

  setPipeline(pipeline: FakePipeline): void {
    this.#pipeline = pipeline;
  }

  setBindGroup(index: number, group: FakeBindGroup): void {
    this.#groups.set(index, group);
  }

  dispatchWorkgroups(x: number, y = 1, z = 1): void {
    const groups = new Map(this.#groups);
    const entryPoint = this.#pipeline?.entryPoint ?? "";
    const bytes = (binding: number, group = 0): Uint8Array => {
      const resource = groups.get(group)?.entries.find((entry) => entry.binding === binding)?.resource;
      if (resource === undefined) {
        throw new Error(`nothing is bound at group ${group}, binding ${binding}`);
      }
      const { buffer, offset = 0, size } = "buffer" in resource ? resource : { buffer: resource };
      const target = buffer as unknown as FakeBuffer;
      return target.bytes.subarray(offset, offset + (size ?? target.size - offset));
    };
    this.#record(() => {
      const kernel = this.#gpu.kernels[entryPoint];
      if (kernel === undefined) {
        throw new Error(`the fake device has no kernel for entry point "${entryPoint}": give it one`);
      }
      kernel({
        workgroups: [x, y, z],
        bytes,
        words(binding, group) {
          const at = bytes(binding, group);
          return new Uint32Array(at.buffer, at.byteOffset, at.byteLength >> 2);
        },
      });
    });
  }

  end(): void {}
}
