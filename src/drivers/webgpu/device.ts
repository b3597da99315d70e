/** A WebGPU device that mirrors address spaces. */
import { ADDRESS_LIMIT, invariant, KernelError, quote, traceNow, traceOn } from "../../base/index.ts";
import { type AddressSpace, svmAddressOf } from "../../mm/index.ts";
import { assertWait, lockdepDetached, RwSemaphore } from "../../sync/index.ts";
import { BindGroups } from "./bind-groups.ts";
import { type BindTarget, mappingOf } from "./bind-plan.ts";
import { type CompileOptions, compileKernel } from "./compile.ts";
import type { Extent } from "./extent.ts";
import { FenceTimeline } from "./fence.ts";
import { createGpuBuffer, type OwnedBuffer } from "./gpu-buffer.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import { BindKernel, type DispatchProgress, type WebGpuKernel } from "./kernel.ts";
import { MemoryBudget } from "./memory-budget.ts";
import { DeviceMirror } from "./mirror.ts";
import { countPages, type DevicePageCounts } from "./page-counts.ts";
import { withUser } from "./submit.ts";
import type { SvmAdvice } from "./svm/advice.ts";
import type { SvmDevice } from "./svm/svm-device.ts";
import { usesSvm } from "./svm/uses-svm.ts";
import { traceEvict } from "./trace-gpu.ts";
import { TransferEngine } from "./transfer.ts";
import { BufferUsage } from "./usage.ts";

/** How a device is opened, whatever GPU it is on. */
export interface WebGpuDeviceOptions {
  /** The most bytes of GPU buffers that hold pages. Default: what the adapter's one biggest buffer holds, four times. */
  readonly deviceMemory?: number | undefined;
}

/** Counts since the device was opened. */
export interface WebGpuDeviceStats {
  readonly dispatches: number;
  /** Tries that an invalidation undid. */
  readonly restarts: number;
  readonly bytesToDevice: number;
  readonly bytesToHost: number;
  readonly pagesUploaded: number;
  readonly bytesEvicted: number;
  /**
   * Bytes of GPU buffers that hold pages now, and the cap on them; and of all others `beside`: staging, and what svm mode needs
   * to run kernels.
   */
  readonly deviceMemory: { readonly used: number; readonly limit: number; readonly beside: number };
  /** What those buffers hold. */
  readonly pages: DevicePageCounts;
  /** Svm dispatches under way that have run a round. */
  readonly running: readonly DispatchProgress[];
}

/** Code that bind mode does without. */
type SvmModule = typeof import("./svm/index.ts");

/** Got from WebGpuDriver.open. */
export class WebGpuDevice {
  readonly gpu: GpuHandle;
  readonly label: string;
  readonly fences: FenceTimeline;
  readonly transfer: TransferEngine;
  readonly budget: MemoryBudget;
  readonly groups: BindGroups;
  /**
   * One bind dispatch at a time is prepared and submitted; or svm dispatches run, which read-lock it to their end. Outermost
   * lock; the GPU's own work overlaps.
   */
  readonly turn = new RwSemaphore("x-webgpu-turn");
  readonly counts = { dispatches: 0, restarts: 0, pagesUploaded: 0, bytesEvicted: 0 };
  readonly #mirrors = new Map<AddressSpace, DeviceMirror>();
  /** Mirrors that are being registered. */
  readonly #making = new Map<AddressSpace, Promise<DeviceMirror>>();
  readonly #teardowns = new Set<Promise<void>>();
  /** What went wrong in teardowns, for {@link close} to report. */
  readonly #failures: unknown[] = [];
  readonly #atClose: (() => void)[] = [];
  /** Dispatches that the GPU works on. */
  readonly #running = new Set<Promise<unknown>>();
  /** Uniform buffers that no dispatch in flight uses, by size. */
  readonly #uniforms = new Map<number, OwnedBuffer[]>();
  #svmModule: SvmModule | undefined;
  #svm: SvmDevice | undefined;
  #uses = 0;
  #closed: Promise<void> | undefined;

  /** @internal Use WebGpuDriver.open. */
  constructor(gpu: GpuHandle, options: WebGpuDeviceOptions = {}) {
    this.gpu = gpu;
    this.label = gpu.label;
    this.fences = new FenceTimeline(gpu);
    this.transfer = new TransferEngine(gpu);
    this.groups = new BindGroups(gpu.device);
    const limit = options.deviceMemory ?? gpu.limits.maxBufferSize * 4;
    if (!Number.isSafeInteger(limit) || limit <= 0) {
      throw new KernelError("EINVAL", "open", `deviceMemory ${limit}: use a number of bytes above 0`);
    }
    this.budget = new MemoryBudget(limit, (keep) => this.#evictOne(keep));
    gpu.lost.onLost(() => {
      for (const mirror of this.#mirrors.values()) {
        mirror.poison();
      }
    });
  }

  /**
   * Compiles a kernel for this device. Any `@compute` WGSL works; its storage variables are bound by name. One that calls
   * `pm_*` functions follows addresses of an address space (svm mode).
   * @throws KernelError EINVAL a WGSL error (with line and column), no or several entry points, over the device's limits;
   *   ENOTSUP textures and samplers; ENOMEM; ENODEV the device is lost or closed; EINTR
   */
  async kernel(wgsl: string, options: CompileOptions = {}): Promise<WebGpuKernel> {
    assertWait("kernel", options);
    const { name = "kernel" } = options;
    if (typeof name !== "string") {
      throw new KernelError("EINVAL", "kernel", `the name is ${quote(name)}: give a string`);
    }
    this.assertOpen(name);
    if (typeof wgsl !== "string") {
      throw new KernelError("EINVAL", name, "the WGSL is no text: give it as a string");
    }
    if (usesSvm(wgsl)) {
      const { SvmKernel, compileSvmKernel } = await this.#loadSvm();
      return new SvmKernel(this, await compileSvmKernel(this.gpu, wgsl, options), name);
    }
    return new BindKernel(this, await compileKernel(this.gpu, wgsl, options), name);
  }

  /** @throws KernelError ENODEV when the device was closed or lost */
  assertOpen(op: string): void {
    if (this.#closed !== undefined) {
      throw new KernelError("ENODEV", op, `device "${this.label}" was closed: open another one`);
    }
    this.gpu.lost.check(op);
  }

  stats(): WebGpuDeviceStats {
    const { bytesToDevice, bytesToHost } = this.transfer.stats;
    const inFrames = this.#svm?.pool.bytesEvicted ?? 0;
    const { used, limit } = this.budget;
    return {
      ...this.counts,
      bytesEvicted: this.counts.bytesEvicted + inFrames,
      bytesToDevice,
      bytesToHost,
      deviceMemory: { used, limit, beside: Math.max(0, this.gpu.bufferBytes - used) },
      pages: this.pageCounts(),
      running: [...(this.#svm?.running.values() ?? [])],
    };
  }

  /** What the device's memory holds; looks at each page. */
  pageCounts(): DevicePageCounts {
    const extents = [...this.#mirrors.values()].flatMap((mirror) => [
      ...mirror.extents.all(),
      ...(mirror.frames?.overlapping(0, ADDRESS_LIMIT) ?? []),
    ]);
    return countPages(extents, this.budget.limit);
  }

  /** The mirror of an address space, registered at the first use. @internal */
  async mirrorOf(mm: AddressSpace): Promise<DeviceMirror> {
    const found = this.#mirrors.get(mm);
    if (found !== undefined) {
      return found;
    }
    const making = this.#making.get(mm) ?? this.#makeMirror(mm);
    this.#making.set(mm, making);
    try {
      return await making;
    } finally {
      this.#making.delete(mm);
    }
  }

  async #makeMirror(mm: AddressSpace): Promise<DeviceMirror> {
    mm.assertAlive("dispatch");
    const mirror = new DeviceMirror(
      {
        gpu: this.gpu,
        fences: this.fences,
        budget: this.budget,
        transfer: this.transfer,
        onExit: (exited) => this.#scheduleTeardown(exited),
      },
      mm,
    );
    await mirror.hmm.register(mm);
    this.#mirrors.set(mm, mirror);
    return mirror;
  }

  async #loadSvm(): Promise<SvmModule> {
    this.#svmModule ??= await import("./svm/index.ts");
    return this.#svmModule;
  }

  /** What svm mode keeps; made when it is first used, after the module was loaded. @internal */
  get svm(): SvmDevice {
    const module = this.#svmModule;
    invariant(module !== undefined, "I-GPU-10", () => "svm mode is used before it was loaded");
    this.#svm ??= new module.SvmDevice(this);
    return this.#svm;
  }

  get isClosed(): boolean {
    return this.#closed !== undefined;
  }

  /** Runs when the device is closed, to free what belongs to it. @internal */
  onClose(listener: () => void): void {
    this.#atClose.push(listener);
  }

  /** Waits for something that the GPU does, as {@link close} will. @internal */
  async untilFinished<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work);
    try {
      return await work;
    } finally {
      this.#running.delete(work);
    }
  }

  /** A uniform buffer for one dispatch. Give it back with {@link putUniform}. @internal */
  async getUniform(bytes: number, op: string): Promise<OwnedBuffer> {
    const usage = BufferUsage.Uniform | BufferUsage.CopyDst;
    return this.#uniforms.get(bytes)?.pop() ?? (await createGpuBuffer(this.gpu, { label: "params", bytes, usage }, op));
  }

  /** The queue runs in order: what is written to the buffer later cannot overtake this dispatch. @internal */
  putUniform(uniform: OwnedBuffer): void {
    const free = this.#uniforms.get(uniform.bytes);
    if (this.#closed !== undefined) {
      uniform.destroy();
    } else if (free === undefined) {
      this.#uniforms.set(uniform.bytes, [uniform]);
    } else {
      free.push(uniform);
    }
  }

  /**
   * Brings memory to the device before an svm kernel asks for it: a hint, which changes no result. As much as the pool of
   * frames holds is brought; with `write` the pages become device-private. What is not mapped, or not writable then, is left
   * out. Returns the number of device pages moved.
   * @throws KernelError EINVAL outside the svm aperture; EHWPOISON, EIO, ENOMEM of the pages; EBUSY leases in the way;
   *   ENODEV; EINTR; ESRCH
   * @linux drivers/gpu/drm/nouveau/nouveau_svm.c nouveau_svmm_bind
   */
  async prefetch(
    target: BindTarget,
    options: { readonly write?: boolean; readonly signal?: AbortSignal; readonly timeoutMs?: number } = {},
  ): Promise<number> {
    const op = "prefetch";
    this.assertOpen(op);
    assertWait(op, options);
    const mapping = mappingOf(target, op, "the target");
    svmAddressOf(mapping.start, mapping.name);
    await this.#loadSvm();
    return await withUser(mapping.mm, op, async () => {
      const { signal, timeoutMs = 1000 } = options;
      using _turn = await this.turn.read({ signal });
      this.assertOpen(op);
      const mirror = await this.mirrorOf(mapping.mm);
      return await this.svm.prefetch(mirror, target, options.write ?? false, { op, signal, timeoutMs });
    });
  }

  /**
   * Tells what kernels will do with a range, for svm mode; see {@link SvmAdvice}. A hint, which changes no result.
   * @throws KernelError EINVAL outside the svm aperture, unknown advice; ENODEV; ESRCH
   * @linux drivers/gpu/drm/amd/amdkfd/kfd_svm.c svm_range_set_attr
   */
  async advise(target: BindTarget, advice: SvmAdvice): Promise<void> {
    const op = "advise";
    this.assertOpen(op);
    const { adviceCode } = await this.#loadSvm();
    const code = adviceCode(advice);
    const mapping = mappingOf(target, op, "the target");
    svmAddressOf(mapping.start, mapping.name);
    await withUser(mapping.mm, op, async () => {
      using _turn = await this.turn.read();
      this.assertOpen(op);
      await this.svm.advise(await this.mirrorOf(mapping.mm), target, code, op);
    });
  }

  /** Remembers the order of use, for eviction. @internal */
  touch(extent: Extent): void {
    extent.lastUse = ++this.#uses;
  }

  async #evictOne(keep: ReadonlySet<Extent>): Promise<boolean> {
    let victim: { readonly mirror: DeviceMirror; readonly extent: Extent } | undefined;
    for (const mirror of this.#mirrors.values()) {
      for (const extent of mirror.extents.all()) {
        if (!keep.has(extent) && (victim === undefined || extent.lastUse < victim.extent.lastUse)) {
          victim = { mirror, extent };
        }
      }
    }
    if (victim === undefined && (await this.#svm?.pool.makeWay())) {
      return true;
    }
    if (victim === undefined) {
      // Memory of spaces that have exited is on its way back.
      const teardowns = [...this.#teardowns];
      await Promise.allSettled(teardowns);
      return teardowns.some((teardown) => !this.#teardowns.has(teardown));
    }
    const since = traceNow();
    const bytes = await victim.mirror.extents.evict(victim.extent);
    this.counts.bytesEvicted += bytes;
    if (traceOn) {
      traceEvict(this.label, victim.mirror.mm, victim.extent, bytes, since);
    }
    return true;
  }

  /** Unregistering waits for the callback that asks for it, so it is done once the exit path has gone on. */
  #scheduleTeardown(mirror: DeviceMirror): void {
    const teardown = new Promise<void>((resolve, reject) => {
      setTimeout(() => lockdepDetached("teardown", () => this.#endMirror(mirror)).then(resolve, reject), 0);
    });
    // Whoever waits for it sees that it is over: one who looks again and again leaves nobody else a turn.
    const ended = teardown
      .catch((error: unknown) => {
        this.#failures.push(error);
      })
      .then(() => {
        this.#teardowns.delete(ended);
      });
    this.#teardowns.add(ended);
  }

  async #endMirror(mirror: DeviceMirror): Promise<void> {
    // After the exit path has unmapped everything, so that pages nobody can ask for any more are not read back.
    (await mirror.mm.mmapLock.read()).release();
    if (this.#mirrors.get(mirror.mm) === mirror) {
      this.#mirrors.delete(mirror.mm);
      await mirror.close();
    }
  }

  /** Brings all pages home and ends the device. Idempotent. Use WebGpuDriver.unload for the whole end. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const turn = await this.turn.write();
    try {
      // Spaces may exit meanwhile, and each has its mirror ended by whoever comes first.
      while (this.#mirrors.size > 0 || this.#teardowns.size > 0) {
        for (const [mm, mirror] of [...this.#mirrors]) {
          this.#mirrors.delete(mm);
          await mirror.close().catch((error: unknown) => this.#failures.push(error));
        }
        await Promise.all(this.#teardowns);
      }
      await Promise.allSettled(this.#running);
      await this.fences.idle();
    } finally {
      turn.release();
      for (const listener of this.#atClose) {
        listener();
      }
      for (const uniform of [...this.#uniforms.values()].flat()) {
        uniform.destroy();
      }
      this.#uniforms.clear();
      this.groups.clear();
      this.transfer.destroy();
      this.gpu.destroy();
    }
    if (this.#failures.length > 0) {
      throw this.#failures[0];
    }
  }
}
