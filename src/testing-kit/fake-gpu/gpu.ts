/** A GPUDevice without a GPU: deterministic, and in trouble whenever a test wants it. */
import { FakeBuffer } from "./buffer.ts";
import { answer, CallLog, type GpuTrouble } from "./calls.ts";
import { type FakeBindGroup, FakeEncoder, type FakeKernel, type FakePipeline } from "./commands.ts";

/** What a fake device is made of. */
export interface FakeGpuOptions {
  /** What each entry point does. */
  readonly kernels?: Readonly<Record<string, FakeKernel>> | undefined;
  /** Bytes that its buffers may have in all. Default: no limit. */
  readonly memory?: number | undefined;
  readonly limits?: Readonly<Record<string, number>> | undefined;
}

const LIMITS = {
  maxBufferSize: 2 ** 28,
  maxStorageBufferBindingSize: 2 ** 27,
  maxUniformBufferBindingSize: 65_536,
  maxStorageBuffersPerShaderStage: 8,
  maxUniformBuffersPerShaderStage: 12,
  maxBindingsPerBindGroup: 1000,
  maxBindGroups: 4,
  minStorageBufferOffsetAlignment: 256,
  minUniformBufferOffsetAlignment: 256,
  maxComputeWorkgroupStorageSize: 16_384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupSizeY: 256,
  maxComputeWorkgroupSizeZ: 64,
  maxComputeWorkgroupsPerDimension: 65_535,
};

interface Scope {
  readonly filter: string;
  error: { readonly message: string } | null;
}

type Data = ArrayBufferView | ArrayBuffer;

/** A part of data, in its elements. */
function bytesOf(data: Data, from: number, count: number | undefined): Uint8Array {
  const unit = "BYTES_PER_ELEMENT" in data ? (data.BYTES_PER_ELEMENT as number) : 1;
  const all = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
  return all.subarray(from * unit, count === undefined ? undefined : (from + count) * unit);
}

/**
 * The device and its handles for the test. Commands run when they are submitted; what is waited for is there some promise
 * turns later, in the same order in every run.
 */
export class FakeGpu {
  readonly kernels: Readonly<Record<string, FakeKernel>>;
  readonly calls: CallLog;
  readonly buffers = new Set<FakeBuffer>();
  /** What the device refused outside of all error scopes. */
  readonly refused: string[] = [];
  bytesInUse = 0;
  readonly #memory: number;
  readonly #limits: Readonly<Record<string, number>>;
  readonly #scopes: Scope[] = [];
  readonly #listeners = new Set<(event: unknown) => void>();
  readonly #lostPromise: Promise<{ readonly reason: string; readonly message: string }>;
  #sayLost: (info: { reason: string; message: string }) => void = () => {};
  #isLost = false;

  constructor(options: FakeGpuOptions = {}) {
    this.kernels = options.kernels ?? {};
    this.#memory = options.memory ?? Number.POSITIVE_INFINITY;
    this.#limits = { ...LIMITS, ...options.limits };
    this.calls = new CallLog(() => this.lose());
    this.#lostPromise = new Promise((resolve) => {
      this.#sayLost = resolve;
    });
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  /** Orders trouble for a call, counted from 0: `names` of {@link calls} of a run without trouble tells which is which. */
  trouble(call: number, trouble: GpuTrouble): void {
    this.calls.order(call, trouble);
  }

  /** The device is lost now. */
  lose(reason = "unknown", message = "the fake device was told to be lost"): void {
    if (!this.#isLost) {
      this.#isLost = true;
      this.#sayLost({ reason, message });
    }
  }

  /** The error of a command that the device does not take. */
  refuse(message: string, filter = "validation"): void {
    if (this.#isLost) {
      return;
    }
    const scope = this.#scopes.findLast((entry) => entry.filter === filter);
    if (scope !== undefined) {
      scope.error ??= { message };
      return;
    }
    this.refused.push(message);
    for (const listener of this.#listeners) {
      listener({ error: { message }, preventDefault: () => {} });
    }
  }

  #createBuffer(descriptor: GPUBufferDescriptor): FakeBuffer {
    const trouble = this.calls.note("createBuffer");
    const full = trouble === "out-of-memory" || this.bytesInUse + descriptor.size > this.#memory;
    if (full && descriptor.mappedAtCreation === true) {
      throw new RangeError("createBuffer: out of memory");
    }
    if (full) {
      this.refuse(`no memory for ${descriptor.size} bytes`, "out-of-memory");
    }
    const wrong = !(descriptor.size <= (this.#limits.maxBufferSize ?? 0)) || descriptor.usage === 0;
    if (wrong) {
      this.refuse(`a buffer of ${descriptor.size} bytes with usage ${descriptor.usage}`);
    }
    return new FakeBuffer(this, descriptor, !full && !wrong);
  }

  #createPipeline(descriptor: GPUComputePipelineDescriptor): Promise<FakePipeline> {
    const trouble = this.calls.note("createComputePipelineAsync");
    if (trouble === "out-of-memory") {
      this.refuse("no memory for the pipeline", "out-of-memory");
    }
    const entryPoint = descriptor.compute.entryPoint ?? "main";
    return answer(trouble, () => ({ entryPoint, getBindGroupLayout: () => ({}) }));
  }

  /** @see GPUDevice */
  readonly device = ((gpu: FakeGpu): GPUDevice => {
    const queue = {
      label: "",
      submit(buffers: Iterable<{ run(): void }>) {
        gpu.calls.note("submit");
        for (const buffer of gpu.isLost ? [] : buffers) {
          buffer.run();
        }
      },
      writeBuffer(buffer: FakeBuffer, offset: number, data: Data, dataOffset = 0, size?: number) {
        gpu.calls.note("writeBuffer");
        const bytes = bytesOf(data, dataOffset, size);
        if (offset % 4 !== 0 || bytes.length % 4 !== 0 || offset + bytes.length > buffer.size || buffer.isDestroyed) {
          gpu.refuse(`writeBuffer of ${bytes.length} bytes at ${offset} of buffer "${buffer.label}"`);
        } else if (!gpu.isLost) {
          buffer.bytes.set(bytes, offset);
        }
      },
      onSubmittedWorkDone: () => answer(gpu.calls.note("onSubmittedWorkDone"), () => undefined),
    };
    const device = {
      label: "fake",
      queue,
      features: new Set<string>(),
      lost: undefined as unknown,
      limits: undefined as unknown,
      createBuffer: (descriptor: GPUBufferDescriptor) => gpu.#createBuffer(descriptor),
      createShaderModule: () => ({
        getCompilationInfo: () => answer(gpu.calls.note("getCompilationInfo"), () => ({ messages: [] })),
      }),
      createBindGroupLayout: () => ({}),
      createPipelineLayout: () => ({}),
      createBindGroup: (descriptor: FakeBindGroup) => descriptor,
      createComputePipelineAsync: (descriptor: GPUComputePipelineDescriptor) => gpu.#createPipeline(descriptor),
      createCommandEncoder: () => new FakeEncoder(gpu),
      pushErrorScope: (filter: string) => void gpu.#scopes.push({ filter, error: null }),
      popErrorScope: () => {
        const scope = gpu.#scopes.pop();
        return answer(gpu.calls.note("popErrorScope"), () => scope?.error ?? null);
      },
      addEventListener: (_: string, listener: (event: unknown) => void) => void gpu.#listeners.add(listener),
      removeEventListener: (_: string, listener: (event: unknown) => void) => void gpu.#listeners.delete(listener),
      destroy: () => {
        gpu.lose("destroyed", "");
        for (const buffer of [...gpu.buffers]) {
          buffer.destroy();
        }
      },
    };
    Object.defineProperty(device, "lost", { get: () => gpu.#lostPromise });
    Object.defineProperty(device, "limits", { get: () => gpu.#limits });
    return device as unknown as GPUDevice;
  })(this);
}
