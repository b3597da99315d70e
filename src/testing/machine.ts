/** A whole machine for tests: address spaces, a driver, and WebGPU devices that mirror them. */
import { type WebGpuDevice, WebGpuDriver, type WebGpuKernel } from "../drivers/webgpu/index.ts";
import { AddressSpace, type CpuMmu, type Mapping, PhysicalMemory } from "../mm/index.ts";
import { openDawn } from "../platform/node/dawn.ts";
import { testMmu } from "./mmu.ts";

/** Adds 1 to each word of `data`. One invocation a word, 64 to a workgroup. */
export const INCREMENT = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { data[id.x] += 1u; }
}`;

/** `sums[0] += scale * sum of data`. */
export const SUM = /* wgsl */ `
struct Params { scale: u32 }
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> sums: array<atomic<u32>>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { atomicAdd(&sums[0], data[id.x] * params.scale); }
}`;

/** `to[i] = from[i]`. */
export const COPY = /* wgsl */ `
@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read_write> dst: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < min(arrayLength(&src), arrayLength(&dst))) { dst[id.x] = src[id.x]; }
}`;

/** Adds 1 to the first word of `data` after having kept the GPU busy for `turns` turns of a loop. */
export const SLOW = /* wgsl */ `
struct Params { turns: u32 }
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;
@compute @workgroup_size(1) fn main() {
  var x = data[0];
  for (var i = 0u; i < params.turns; i++) { x = x * 1664525u + 1013904223u; }
  data[0] += select(1u, 2u, x == 0x12345678u);
}`;

/** Options of {@link openMachine}. */
export interface MachineOptions {
  readonly deviceMemory?: number;
  /** Default: what the environment says. */
  readonly mmu?: CpuMmu;
}

/** Disposed of: the spaces exit, the driver is unloaded. */
export class Machine implements AsyncDisposable {
  readonly driver = new WebGpuDriver();
  readonly memory: PhysicalMemory;
  readonly mm: AddressSpace;
  readonly #spaces: AddressSpace[] = [];
  readonly #closers: (() => void)[] = [];
  #device: WebGpuDevice | undefined;

  constructor(mmu: CpuMmu = testMmu()) {
    this.memory = new PhysicalMemory(mmu);
    this.mm = this.space();
  }

  /** The first device. */
  get device(): WebGpuDevice {
    if (this.#device === undefined) {
      throw new Error("the machine has no device yet");
    }
    return this.#device;
  }

  /** One more address space over the same memory. */
  space(): AddressSpace {
    const mm = AddressSpace.create({ memory: this.memory });
    this.#spaces.push(mm);
    return mm;
  }

  /** One more device, on an adapter of its own. */
  async open(options: MachineOptions = {}): Promise<WebGpuDevice> {
    const { adapter, waiting, writing, close } = await openDawn();
    this.#closers.push(close);
    const label = `gpu${this.#closers.length}`;
    const device = await this.driver.open({ gpu: adapter, label, waiting, writing, ...options });
    this.#device ??= device;
    return device;
  }

  /** One more device, made by the caller of the driver, who keeps it. */
  async adopt(options: MachineOptions = {}): Promise<{ readonly gpu: GPUDevice; readonly device: WebGpuDevice }> {
    const { adapter, waiting, close } = await openDawn();
    this.#closers.push(close);
    const gpu = await adapter.requestDevice();
    const device = await this.driver.open({ gpu, label: "adopted", waiting, ...options });
    this.#device ??= device;
    return { gpu, device };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      for (const mm of this.#spaces) {
        await mm[Symbol.asyncDispose]();
      }
      await this.driver.unload();
    } finally {
      for (const close of this.#closers) {
        close();
      }
    }
  }
}

/** A machine with one device. */
export async function openMachine(options: MachineOptions = {}): Promise<Machine> {
  const machine = new Machine(options.mmu);
  await machine.open(options);
  return machine;
}

/** Workgroups of {@link INCREMENT} and the like for a number of bytes. */
export function groupsFor(bytes: number): number {
  return Math.ceil(bytes / 256);
}

/** Adds 1 to every word of a mapping. */
export async function increment(kernel: WebGpuKernel, data: Mapping): Promise<void> {
  await kernel.dispatch({ bind: { data }, workgroups: groupsFor(data.length) });
}

/** The words of a mapping. */
export async function wordsOf(data: Mapping): Promise<Uint32Array> {
  const bytes = await data.read();
  return new Uint32Array(bytes.buffer, 0, bytes.length >> 2);
}
