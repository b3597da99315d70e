/** A world with GPUs: the WebGPU driver over fake devices, and pages that count what was done to them. */
import { KernelError } from "../../base/index.ts";
import { type WebGpuDevice, WebGpuDriver, type WebGpuKernel } from "../../drivers/webgpu/index.ts";
import { type AddressSpace, Mapping, type MemoryObject, PageFlag } from "../../mm/index.ts";
import type { FakeDispatch } from "../../testing-kit/fake-gpu/commands.ts";
import { FakeGpu } from "../../testing-kit/fake-gpu/gpu.ts";
import type { Host } from "../scenario.ts";
import { PAGE, PAGES, START, World } from "./world.ts";

const ADD = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(1) fn add() { data[4] += 1u; }`;

const LOOK = /* wgsl */ `
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;
@compute @workgroup_size(1) fn look() { seen[8] = data[4]; }`;

/** The word of each page that is counted in, after those that other actions write. */
const WORD = 4;
const WORDS = PAGE / 4;
/** Of pages whose bytes are elsewhere, or on their way. */
const AWAY = PageFlag.Busy | PageFlag.Device | PageFlag.Poisoned;
/** What the CPU adds; devices add 1. */
const CPU_STEP = 1000;

/** Additions to a page that are done, and those that may be. */
interface Additions {
  done: number;
  started: number;
}

/** Additions to a page by devices and by the CPU. */
interface PageCounts {
  readonly gpu: Additions;
  readonly cpu: Additions;
}

/** What was certainly added to each page. */
type Least = readonly { readonly gpu: number; readonly cpu: number }[];

/** A device with its kernels. */
export interface OpenGpu {
  readonly gpu: FakeGpu;
  readonly device: WebGpuDevice;
  readonly add: WebGpuKernel;
  readonly look: WebGpuKernel;
}

/** Additions that were reported as done are there, whatever the order; those that failed are not; no other may be. */
export class GpuWorld extends World {
  readonly gpuDriver = new WebGpuDriver();
  readonly data: Mapping;
  readonly #gpus = new Map<number, OpenGpu>();
  readonly #deviceMemory: number;
  readonly #counts: readonly PageCounts[];
  /** What the look that is under way has to find. */
  #least: Least | undefined;
  /** Pages may read as zeros: somebody dropped their content. */
  dropped = false;

  constructor(host: Host, deviceMemory: number) {
    super(host);
    this.#deviceMemory = deviceMemory;
    this.data = new Mapping(this.mm, START, PAGES * PAGE, "data");
    this.#counts = Array.from({ length: PAGES }, () => ({
      gpu: { done: 0, started: 0 },
      cpu: { done: 0, started: 0 },
    }));
  }

  /** The first or second device, opened when it is first asked for. */
  async openGpu(which = 0): Promise<OpenGpu> {
    const open = this.#gpus.get(which);
    if (open !== undefined) {
      return open;
    }
    const gpu = new FakeGpu({
      limits: { maxBufferSize: 2 ** 16, maxStorageBufferBindingSize: 2 ** 16 },
      kernels: { add: (call) => this.#add(call), look: (call) => this.#look(call) },
    });
    const device = await this.gpuDriver.open({
      gpu: gpu.device,
      label: `gpu${which}`,
      deviceMemory: this.#deviceMemory,
    });
    const made = { gpu, device, add: await device.kernel(ADD), look: await device.kernel(LOOK) };
    this.#gpus.set(which, made);
    return made;
  }

  #add({ words }: FakeDispatch): void {
    const data = words(0);
    for (let at = WORD; at < data.length; at += WORDS) {
      data[at]++;
    }
  }

  #look({ words }: FakeDispatch): void {
    const data = words(0);
    for (let page = 0; page * WORDS < data.length; page++) {
      this.#checkWord("a device", page, data[page * WORDS + WORD], this.#least);
    }
  }

  /** A device adds to pages `[page, page + count)`. */
  async dispatchAdd({ add }: OpenGpu, page: number, count: number): Promise<void> {
    const counts = this.#counts.slice(page, page + count).map(({ gpu }) => gpu);
    for (const each of counts) {
      each.started++;
    }
    try {
      await add.dispatch({ bind: { data: this.data.range(page * PAGE, count * PAGE) }, workgroups: 1 });
      for (const each of counts) {
        each.done++;
      }
    } catch (error) {
      if (error instanceof KernelError && error.code !== "ENODEV") {
        // It was refused: nothing may have changed.
        for (const each of counts) {
          each.started--;
        }
      }
      throw error;
    }
  }

  /** A device looks at the first half of the pages: it sees what was done before. */
  async dispatchLook({ look }: OpenGpu): Promise<void> {
    const least = this.#leastOf();
    this.#least ??= least;
    const bind = { data: this.data.range(0, 2 * PAGE), seen: this.data.range(3 * PAGE, PAGE) };
    try {
      await look.dispatch({ bind, workgroups: 1 });
    } finally {
      if (this.#least === least) {
        this.#least = undefined;
      }
    }
  }

  /** The CPU adds to the first half of the pages. */
  async cpuAdd(): Promise<void> {
    const least = this.#leastOf();
    using lease = await this.data.lease("rw", { offset: 0, length: 2 * PAGE });
    const { u32 } = lease;
    for (let page = 0; page < 2; page++) {
      const at = page * WORDS + WORD;
      this.#checkWord("the CPU", page, u32[at], least);
      this.#counts[page].cpu.started++;
      u32[at] += CPU_STEP;
      this.#counts[page].cpu.done++;
    }
  }

  /** The CPU reads the first half of the pages, in this space or in a child. */
  async cpuLook(mm: AddressSpace, who: string, least: Least = this.#leastOf()): Promise<void> {
    using lease = await new Mapping(mm, START, 2 * PAGE, who).lease("r");
    const { u32 } = lease;
    for (let page = 0; page < 2; page++) {
      this.#checkWord(who, page, u32[page * WORDS + WORD], least);
    }
  }

  /** Where the host has the pages, the CPU adds to them, as plain arrays do: without a lease. */
  protected override changeRuns(object: MemoryObject): void {
    super.changeRuns(object);
    for (let page = 0; page < 2; page++) {
      if ((object.flagsOf(page) & (PageFlag.Uptodate | AWAY)) === PageFlag.Uptodate) {
        const { buffer, byteOffset } = object.windows.offset(page);
        new Uint32Array(buffer, byteOffset, WORDS)[WORD] += CPU_STEP;
        this.#counts[page].cpu.started++;
        this.#counts[page].cpu.done++;
      }
    }
  }

  /** What was done so far. */
  #leastOf(): Least {
    return this.#counts.map(({ gpu, cpu }) => ({ gpu: gpu.done, cpu: cpu.done }));
  }

  /** A fork of the space, which has what was done before it. */
  async forkAndLook(): Promise<void> {
    const least = this.#leastOf();
    const child = await this.mm.fork();
    this.watch(child);
    this.endings.push(() => child.mmput());
    await this.cpuLook(child, "a child", least);
  }

  #checkWord(who: string, page: number, word: number, least: Least | undefined): void {
    const { gpu, cpu } = this.#counts[page];
    const [byGpu, byCpu] = [word % CPU_STEP, Math.floor(word / CPU_STEP)];
    const few = !this.dropped && least !== undefined && (byGpu < least[page].gpu || byCpu < least[page].cpu);
    if (few || byGpu > gpu.started || byCpu > cpu.started) {
      const range = ({ done, started }: Additions) => (done === started ? `${done}` : `${done} to ${started}`);
      this.host.fail(
        "I-CHK-5",
        `${who} reads ${byGpu} + ${byCpu} additions in page ${page}: devices made ${range(gpu)}, the CPU ${range(cpu)}`,
      );
    }
  }

  override check(): void {
    super.check();
    for (const { gpu, device } of this.#gpus.values()) {
      if (gpu.refused.length > 0) {
        this.host.fail("I-GPU-1", `the GPU refused a command: ${gpu.refused[0]}`);
      }
      const { used, limit } = device.budget;
      if (used > limit) {
        this.host.fail("I-CHK-6", `${used} bytes of device memory are in use, ${limit} are allowed`);
      }
    }
  }

  override async finish(): Promise<void> {
    if (this.mm.users > 0) {
      try {
        await this.cpuLook(this.mm, "the CPU at the end");
      } catch (error) {
        if (!(error instanceof KernelError) || !["EFAULT", "EHWPOISON"].includes(error.code)) {
          throw error;
        }
      }
    }
    await super.finish();
    await this.gpuDriver.unload();
    for (const { gpu } of this.#gpus.values()) {
      if (gpu.buffers.size > 0) {
        this.host.fail("I-CHK-4", `${gpu.buffers.size} buffers are left on a device whose driver was unloaded`);
      }
      gpu.device.destroy();
    }
  }
}
