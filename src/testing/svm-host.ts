/**
 * A tiny host for kernels in svm mode: a page table filled by hand, rounds that bring some of the pages that were asked for,
 * and as many evictions as a test likes. What it holds at the end can be compared with a model on the CPU.
 */
import type { GpuHandle } from "../drivers/webgpu/gpu-handle.ts";
import type { CompiledSvmKernel } from "../drivers/webgpu/svm/compile-svm.ts";
import { Control, type FatalCode, FaultBit } from "../drivers/webgpu/svm/control-layout.ts";
import { DEVICE_PAGE, DEVICE_PAGE_WORDS, SvmPte } from "../drivers/webgpu/svm/page-entry.ts";
import { BufferUsage, MapMode } from "../drivers/webgpu/usage.ts";
import { FAULTS, HostWindow, type SvmRunOptions } from "./svm-host-window.ts";

/** How a device page is mapped. */
export interface PageMapping {
  /** A bit for each CPU page of it that may be read, and for each of those that may be written. */
  readonly readable: number;
  readonly writable: number;
}

export interface SvmHostOptions {
  /** Device pages of the aperture; page 0 is never mapped. */
  readonly pages: number;
  readonly random?: () => number;
  /** Unmapped when undefined is returned. Default: all but page 0, writable, whole. */
  readonly mapping?: (page: number) => PageMapping | undefined;
}

export interface SvmRunResult {
  readonly rounds: number;
  readonly fatal:
    | { readonly code: FatalCode; readonly address: number; readonly workgroup: number; readonly lane: number }
    | undefined;
  /** Pages noted as used, when they were tracked. */
  readonly accessed: readonly number[];
  /** Pages asked for in the first round, as `page` or `-page` when it was to be written. */
  readonly firstFaults: readonly number[];
}

/** Rounds of a window after which nothing is evicted any more. */
const EVICTING_ROUNDS = 20;

/** Memory of which some is in frames of a pool. */
export class SvmHost {
  readonly #gpu: GpuHandle;
  readonly #random: () => number;
  readonly pages: number;
  /** What is in memory; pages that are resident are newer in their frames until {@link settle}. */
  readonly words: Uint32Array<ArrayBuffer>;
  readonly #mapping: (PageMapping | undefined)[];
  readonly #frameOf: number[];
  readonly #flags: number[];
  readonly #pool: GPUBuffer;
  readonly #table: GPUBuffer;
  readonly #free: number[];

  constructor(gpu: GpuHandle, options: SvmHostOptions) {
    const { pages, random = Math.random } = options;
    this.#gpu = gpu;
    this.#random = random;
    this.pages = pages;
    this.words = new Uint32Array(pages * DEVICE_PAGE_WORDS);
    const mapping = options.mapping ?? (() => ({ readable: 15, writable: 15 }));
    this.#mapping = Array.from({ length: pages }, (_, page) => (page === 0 ? undefined : mapping(page)));
    this.#frameOf = new Array(pages).fill(0);
    this.#flags = new Array(pages).fill(0);
    const { device } = gpu;
    const usage = BufferUsage.Storage | BufferUsage.CopyDst | BufferUsage.CopySrc;
    this.#pool = device.createBuffer({ label: "test pool", size: (pages + 1) * DEVICE_PAGE, usage });
    this.#table = device.createBuffer({ label: "test table", size: (pages + 1) * 4, usage });
    // Frames in another order than pages.
    this.#free = Array.from({ length: pages }, (_, i) => i + 1);
    for (let i = this.#free.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [this.#free[i], this.#free[j]] = [this.#free[j] ?? 0, this.#free[i] ?? 0];
    }
  }

  /** Address of a page's first word. */
  static address(page: number): number {
    return page * DEVICE_PAGE_WORDS;
  }

  /** Brings mapped pages with this chance, and of them this part for writing; 1 makes all resident and writable where they may be. */
  makeResident(chance: number, writable = chance === 1 ? 1 : 0.5): void {
    for (let page = 0; page < this.pages; page++) {
      if (this.#mapping[page] !== undefined && this.#random() < chance) {
        this.#map(page, this.#random() < writable);
      }
    }
  }

  async run(kernel: CompiledSvmKernel, options: SvmRunOptions): Promise<SvmRunResult> {
    const { grid } = options;
    const total = grid[0] * grid[1] * grid[2];
    const window = options.pipeline === "resident" ? total : (options.window ?? total);
    let rounds = 0;
    const accessed = new Set<number>();
    let firstFaults: readonly number[] | undefined;
    for (let first = 0; first < total; first += window) {
      const result = await this.#window(kernel, options, first, Math.min(window, total - first));
      rounds += result.rounds;
      firstFaults ??= result.firstFaults;
      for (const page of result.accessed) {
        accessed.add(page);
      }
      if (result.fatal !== undefined) {
        return { rounds, fatal: result.fatal, accessed: [...accessed], firstFaults };
      }
    }
    return { rounds, fatal: undefined, accessed: [...accessed], firstFaults: firstFaults ?? [] };
  }

  /** Reads the frames back: {@link words} is then all there is. */
  async settle(): Promise<Uint32Array<ArrayBuffer>> {
    const { device } = this.#gpu;
    const resident = this.#frameOf.flatMap((frame, page) => (frame === 0 ? [] : [{ frame, page }]));
    if (resident.length > 0) {
      const back = device.createBuffer({
        size: resident.length * DEVICE_PAGE,
        usage: BufferUsage.MapRead | BufferUsage.CopyDst,
      });
      const encoder = device.createCommandEncoder();
      resident.forEach(({ frame }, i) => {
        encoder.copyBufferToBuffer(this.#pool, frame * DEVICE_PAGE, back, i * DEVICE_PAGE, DEVICE_PAGE);
      });
      device.queue.submit([encoder.finish()]);
      await this.#gpu.lost.wait(back.mapAsync(MapMode.Read), "test");
      const words = new Uint32Array(back.getMappedRange());
      resident.forEach(({ page }, i) => {
        const part = words.subarray(i * DEVICE_PAGE_WORDS, (i + 1) * DEVICE_PAGE_WORDS);
        this.words.set(part, page * DEVICE_PAGE_WORDS);
      });
      back.unmap();
      back.destroy();
    }
    return this.words;
  }

  destroy(): void {
    this.#pool.destroy();
    this.#table.destroy();
  }

  #map(page: number, write: boolean): void {
    const mapping = this.#mapping[page];
    if (mapping === undefined) {
      throw new Error(`page ${page} is not mapped`);
    }
    if (this.#frameOf[page] === 0) {
      const frame = this.#free.pop();
      if (frame === undefined) {
        throw new Error("the test pool has a frame for each page");
      }
      this.#frameOf[page] = frame;
      this.#gpu.queue.writeBuffer(
        this.#pool,
        frame * DEVICE_PAGE,
        this.words,
        page * DEVICE_PAGE_WORDS,
        DEVICE_PAGE_WORDS,
      );
    }
    this.#flags[page] = (this.#flags[page] ?? 0) | SvmPte.Valid | (write && mapping.writable !== 0 ? SvmPte.Write : 0);
  }

  async #evict(chance: number, keep: ReadonlySet<number>): Promise<void> {
    if (chance <= 0) {
      return;
    }
    await this.settle();
    this.#frameOf.forEach((frame, page) => {
      if (frame !== 0 && !keep.has(page) && this.#random() < chance) {
        this.#free.push(frame);
        this.#frameOf[page] = 0;
        this.#flags[page] = 0;
      }
    });
  }

  #writeTable(track: boolean): void {
    const entries = new Uint32Array(this.pages + 1);
    this.#mapping.forEach((mapping, page) => {
      if (mapping !== undefined) {
        entries[page] =
          ((this.#frameOf[page] ?? 0) << SvmPte.FrameShift) |
          (this.#flags[page] ?? 0) |
          (mapping.readable << SvmPte.ReadableShift) |
          (mapping.writable << SvmPte.WritableShift) |
          (track ? SvmPte.Track : 0);
      }
    });
    this.#gpu.queue.writeBuffer(this.#table, 0, entries);
  }

  async #window(
    kernel: CompiledSvmKernel,
    options: SvmRunOptions,
    first: number,
    count: number,
  ): Promise<SvmRunResult> {
    const { pipeline = "checked", evict = 0, maxRounds = 400, track = false } = options;
    const where = { pages: this.pages, pool: this.#pool, table: this.#table, first, count };
    using window = await HostWindow.open(this.#gpu, kernel, options, where);
    const { areas } = window;
    let capacity = options.replayCapacity ?? kernel.replayRecords;
    const accessed = new Set<number>();
    let firstFaults: readonly number[] | undefined;
    let pending: Uint32Array<ArrayBuffer> | undefined;
    let thorough = false;
    for (let rounds = 1; ; rounds++) {
      const run = pending?.length ?? count;
      this.#writeTable(track);
      const quick: boolean = (pipeline === "quick" || pipeline === "guarded") && !thorough;
      const words = await window.round(pending, quick, capacity);
      const code = words[Control.FatalCode] as FatalCode;
      for (let page = 0; page < this.pages; page++) {
        if (((words[areas.accessed + (page >> 5)] ?? 0) >>> (page & 31)) & 1) {
          accessed.add(page);
        }
      }
      const found = Math.min(words[Control.FaultCount] ?? 0, options.faultCapacity ?? FAULTS);
      const faults = [...words.subarray(areas.faults, areas.faults + found)].map((entry) => ({
        page: entry >>> FaultBit.PageShift,
        write: (entry & FaultBit.Write) !== 0,
      }));
      firstFaults ??= faults.map(({ page, write }) => (write ? -page : page));
      const done = (fatal: SvmRunResult["fatal"]): SvmRunResult => ({
        rounds,
        fatal,
        accessed: [...accessed],
        firstFaults: firstFaults ?? [],
      });
      if (code !== 0) {
        return done({
          code,
          address: words[Control.FatalAddress] ?? 0,
          workgroup: words[Control.FatalWorkgroup] ?? 0,
          lane: words[Control.FatalLane] ?? 0,
        });
      }
      if (pipeline === "resident" || pipeline === "resident-linear") {
        return done(undefined);
      }
      const again = words[Control.ListOutCount] ?? 0;
      if ((words[Control.Completed] ?? 0) + again !== run) {
        throw new Error(`${words[Control.Completed]} workgroups completed and ${again} are to run again, of ${run}`);
      }
      if (again === 0) {
        return done(undefined);
      }
      thorough = quick && faults.length === 0;
      if (thorough) {
        pending = words.slice(areas.listOut, areas.listOut + again);
        continue;
      }
      capacity = Math.max(capacity, words[Control.ReplayNeeded] ?? 0);
      if (faults.length === 0 && (words[Control.ReplayNeeded] ?? 0) === 0) {
        throw new Error(`round ${rounds}: ${again} workgroups are not done, and no fault says why`);
      }
      if (rounds >= maxRounds) {
        throw new Error(`${again} workgroups are not done after ${rounds} rounds`);
      }
      pending = words.slice(areas.listOut, areas.listOut + again);
      // A chain of many pages would never be whole under evictions without end.
      await this.#serve(faults, options.pagesPerRound, rounds < EVICTING_ROUNDS ? evict : 0);
    }
  }

  async #serve(
    faults: readonly { readonly page: number; readonly write: boolean }[],
    limit: number | undefined,
    evict: number,
  ): Promise<void> {
    await this.#evict(evict, new Set(faults.map(({ page }) => page)));
    const order = faults.map((fault) => ({ ...fault, key: this.#random() })).sort((a, b) => a.key - b.key);
    const most = limit ?? 1 + Math.floor(this.#random() * order.length);
    for (const { page, write } of order.slice(0, most)) {
      this.#map(page, write);
    }
  }
}
