/** The control buffer of svm rounds: where its areas are, what goes in, what comes out. */
import { KernelError } from "../../../base/index.ts";
import { createGpuBuffer, type OwnedBuffer } from "../gpu-buffer.ts";
import type { GpuHandle } from "../gpu-handle.ts";
import { BufferUsage, MapMode } from "../usage.ts";
import { CONTROL_HEADER_WORDS, Control, type FatalCode, FaultBit, MOST_MISSES, replayWords } from "./control-layout.ts";

/** Faults that one round can report; the rest waits in the bitmaps. */
const FAULT_CAPACITY = 16_384;

/** What a round has reported before it runs. */
const NOTHING_YET = new Uint32Array(CONTROL_HEADER_WORDS);

/** What the areas have to hold. */
export interface ControlShape {
  /** Workgroups of a window. */
  readonly window: number;
  readonly invocationsPerWorkgroup: number;
  /** Device pages of the table. */
  readonly pages: number;
  /** Records an invocation of the log of atomic operations; 0 for kernels that keep none. */
  readonly replayRecords: number;
  /** Words of such a record. */
  readonly recordWords: number;
  /** Kernels with barriers are done by the workgroup. */
  readonly doneBits: boolean;
  /** Words for what invocations keep between rounds with resume points; 0 until there are some. */
  readonly spillWords: number;
}

/** What a round runs. */
export interface RoundRun {
  readonly grid: readonly [number, number, number];
  readonly windowFirst: number;
  /** Ids to run, or undefined for `count` workgroups from `first` on. */
  readonly ids: Uint32Array<ArrayBuffer> | undefined;
  readonly first: number;
  readonly count: number;
  readonly lanes: readonly [first: number, end: number];
  /** Pages that a thorough run misses at most before its loops end. Default: {@link MOST_MISSES}. */
  readonly mostMisses?: number;
  readonly resume?: ResumeRun;
}

/** What a round with resume points runs with. */
export interface ResumeRun {
  /** The first workgroup that keeps something there, its first invocation, and how many of each workgroup do. */
  readonly first: number;
  readonly laneFirst: number;
  readonly lanes: number;
  /** Pages that an invocation may ask for. */
  readonly mostFaults: number;
  /** All begin from the start. */
  readonly clear: boolean;
}

/** Why a kernel cannot go on, and where. */
export interface FatalAccess {
  readonly code: FatalCode;
  readonly address: number;
  readonly workgroup: number;
  readonly lane: number;
}

/** What a round reports. */
export interface RoundReport {
  readonly completed: number;
  readonly doneInvocations: number;
  /** Of a round with resume points: invocations that came to one or were done, and those that must run again, as scouts must. */
  readonly progressed: number;
  /** Resume points that were passed. */
  readonly turns: number;
  readonly unfinished: number;
  /** Workgroups to run again. */
  readonly failed: Uint32Array<ArrayBuffer>;
  /** A bit for each device page whose entry said that it be tracked, and that was used. */
  readonly accessed: Uint32Array;
  /** `page << 2 | write << 1 | read`. */
  readonly faults: Uint32Array;
  /** Records that the log of atomic operations must hold for the kernel to go on; 0 while there is room. */
  readonly replayNeeded: number;
  /** More faults than the list holds were found. */
  readonly overflow: boolean;
  readonly fatal: FatalAccess | undefined;
  /** How long it was waited for, in milliseconds. */
  readonly took: number;
}

interface Areas {
  readonly faultList: number;
  readonly listOut: number;
  readonly listIn: number;
  readonly readBits: number;
  readonly writeBits: number;
  readonly accessed: number;
  readonly done: number;
  readonly spill: number;
  readonly replay: number;
  readonly words: number;
}

function areasOf(shape: ControlShape): Areas {
  const { window, invocationsPerWorkgroup, pages, replayRecords, recordWords, doneBits, spillWords } = shape;
  const bitmap = Math.ceil(Math.max(1, pages) / 32);
  const invocations = window * invocationsPerWorkgroup;
  let at: number = CONTROL_HEADER_WORDS;
  const area = (words: number) => {
    const start = at;
    at += Math.ceil(words / 4) * 4;
    return start;
  };
  // What is read back comes first, in one piece.
  return {
    accessed: area(bitmap),
    faultList: area(FAULT_CAPACITY),
    listOut: area(window),
    listIn: area(window),
    readBits: area(bitmap),
    writeBits: area(bitmap),
    done: area(doneBits ? Math.ceil(invocations / 32) : 0),
    spill: area(spillWords),
    // Last: a column a word, so that a longer log continues where the shorter one ended.
    replay: area(replayRecords === 0 ? 0 : replayWords(replayRecords, recordWords) * invocations),
    get words() {
      return at;
    },
  };
}

/** The control buffer and page-table buffer of one device; used by one round at a time. */
export class ControlBuffers {
  readonly #gpu: GpuHandle;
  #control: OwnedBuffer | undefined;
  #head: OwnedBuffer | undefined;
  readonly #words = new Uint32Array(CONTROL_HEADER_WORDS);
  #readback: OwnedBuffer | undefined;
  #shape: ControlShape | undefined;
  #areas: Areas | undefined;

  constructor(gpu: GpuHandle) {
    this.#gpu = gpu;
  }

  /** The storage buffer that rounds report in. @throws KernelError ENODEV the device was closed */
  get buffer(): GPUBuffer {
    if (this.#control === undefined) {
      throw new KernelError("ENODEV", "dispatch", "the device was closed");
    }
    return this.#control.buffer;
  }

  /** The uniform buffer with the words that rounds read. @throws KernelError ENODEV as {@link buffer} */
  get header(): GPUBuffer {
    if (this.#head === undefined) {
      throw new KernelError("ENODEV", "dispatch", "the device was closed");
    }
    return this.#head.buffer;
  }

  /** Makes the buffers hold the shape. @throws KernelError ENOMEM, EINVAL over the adapter's limits, ENODEV */
  async prepare(shape: ControlShape): Promise<void> {
    const areas = areasOf(shape);
    this.#shape = shape;
    this.#areas = areas;
    const bytes = areas.words * 4;
    if (this.#control === undefined || this.#control.bytes < bytes) {
      this.#control?.destroy();
      this.#control = undefined;
      this.#control = await createGpuBuffer(
        this.#gpu,
        { label: "pagemirror control", bytes, usage: BufferUsage.Storage | BufferUsage.CopySrc | BufferUsage.CopyDst },
        "dispatch",
      );
    }
    this.#head ??= await createGpuBuffer(
      this.#gpu,
      {
        label: "pagemirror round header",
        bytes: CONTROL_HEADER_WORDS * 4,
        usage: BufferUsage.Uniform | BufferUsage.CopyDst,
      },
      "dispatch",
    );
    const back = (areas.listOut + shape.window) * 4;
    if (this.#readback === undefined || this.#readback.bytes < back) {
      this.#readback?.destroy();
      this.#readback = undefined;
      this.#readback = await createGpuBuffer(
        this.#gpu,
        {
          label: "pagemirror round report",
          bytes: Math.ceil(back / 16) * 16,
          usage: BufferUsage.MapRead | BufferUsage.CopyDst,
        },
        "dispatch",
      );
    }
  }

  /**
   * Gives the log of atomic operations more room, or what invocations keep; what there is stays.
   * @throws KernelError ENOMEM, EINVAL, ENODEV
   */
  async grow(room: { readonly replayRecords: number } | { readonly spillWords: number }): Promise<void> {
    const former = this.#control;
    if (former === undefined || this.#shape === undefined) {
      return;
    }
    const was = this.#current();
    const shape = { ...this.#shape, ...room };
    const areas = areasOf(shape);
    const moves = areas.replay !== was.replay && was.words > was.replay;
    if (former.bytes < areas.words * 4 || moves) {
      const next = await createGpuBuffer(
        this.#gpu,
        {
          label: "pagemirror control",
          bytes: areas.words * 4,
          usage: BufferUsage.Storage | BufferUsage.CopySrc | BufferUsage.CopyDst,
        },
        "dispatch",
      );
      const encoder = this.#gpu.device.createCommandEncoder({ label: "pagemirror control" });
      encoder.copyBufferToBuffer(former.buffer, 0, next.buffer, 0, was.replay * 4);
      if (was.words > was.replay) {
        const bytes = (was.words - was.replay) * 4;
        encoder.copyBufferToBuffer(former.buffer, was.replay * 4, next.buffer, areas.replay * 4, bytes);
      }
      this.#gpu.queue.submit([encoder.finish()]);
      former.destroy();
      this.#control = next;
    }
    this.#shape = shape;
    this.#areas = areas;
  }

  /** Invocations begin from the start: forgets what they kept. */
  clearSpill(encoder: GPUCommandEncoder): void {
    const { spill } = this.#current();
    encoder.clearBuffer(this.buffer, spill * 4, (this.#shape?.spillWords ?? 0) * 4);
  }

  /** Forgets all that former rounds left: bitmaps, done bits, replay logs. */
  clear(encoder: GPUCommandEncoder, what: "all" | "faults" | "window"): void {
    const areas = this.#current();
    if (what === "faults") {
      encoder.clearBuffer(this.buffer, areas.readBits * 4, (areas.done - areas.readBits) * 4);
    } else {
      const from = what === "all" ? CONTROL_HEADER_WORDS : areas.done;
      if (areas.words > from) {
        encoder.clearBuffer(this.buffer, from * 4, (areas.words - from) * 4);
      }
    }
  }

  #current(): Areas {
    if (this.#areas === undefined) {
      throw new KernelError("ENODEV", "dispatch", "the device was closed");
    }
    return this.#areas;
  }

  /**
   * Writes the header and the list of a round; takes effect before what is submitted next. `settles`: the compaction is to find
   * out which workgroups are done.
   */
  write(run: RoundRun, settles = true): void {
    const areas = this.#current();
    const header = this.#words;
    header.set(run.grid, Control.GridX);
    header[Control.First] = run.first;
    header[Control.Count] = run.count;
    header[Control.Mode] = run.ids === undefined ? 0 : 1;
    header[Control.Pages] = this.#shape?.pages ?? 0;
    header[Control.DoneBase] = areas.done;
    header[Control.ListIn] = areas.listIn;
    header[Control.ListOut] = areas.listOut;
    header[Control.ReadBits] = areas.readBits;
    header[Control.WriteBits] = areas.writeBits;
    header[Control.AccessedBits] = areas.accessed;
    header[Control.FaultList] = areas.faultList;
    header[Control.FaultCapacity] = FAULT_CAPACITY;
    header[Control.LaneFirst] = run.lanes[0];
    header[Control.LaneEnd] = run.lanes[1];
    header[Control.WindowFirst] = run.windowFirst;
    header[Control.ReplayBase] = areas.replay;
    header[Control.ReplayStride] = (this.#shape?.window ?? 0) * (this.#shape?.invocationsPerWorkgroup ?? 0);
    header[Control.ReplayCapacity] = this.#shape?.replayRecords ?? 0;
    header[Control.Invocations] = settles && this.#shape?.doneBits === true ? this.#shape.invocationsPerWorkgroup : 0;
    header[Control.MostFaults] = run.mostMisses ?? MOST_MISSES;
    if (run.resume !== undefined) {
      header[Control.SpillBase] = areas.spill;
      header[Control.SpillFirst] = run.resume.first;
      header[Control.SpillLaneFirst] = run.resume.laneFirst;
      header[Control.SpillLanes] = run.resume.lanes;
      header[Control.MostFaults] = run.resume.mostFaults;
    }
    this.#gpu.queue.writeBuffer(this.header, 0, header);
    this.#gpu.queue.writeBuffer(this.buffer, 0, NOTHING_YET);
    if (run.ids !== undefined) {
      this.#gpu.queue.writeBuffer(this.buffer, areas.listIn * 4, run.ids);
    }
  }

  /** Forgets which tracked pages were used. */
  clearAccessed(encoder: GPUCommandEncoder): void {
    const { accessed, faultList } = this.#current();
    encoder.clearBuffer(this.buffer, accessed * 4, (faultList - accessed) * 4);
  }

  /** Records the copy of what {@link read} reports of `count` workgroups. */
  record(encoder: GPUCommandEncoder, count: number): void {
    const { listOut } = this.#current();
    if (this.#readback !== undefined) {
      encoder.copyBufferToBuffer(this.buffer, 0, this.#readback.buffer, 0, (listOut + count) * 4);
    }
  }

  /** Waits for the round and reads its report. @throws KernelError ENODEV */
  async read(count: number): Promise<RoundReport> {
    const areas = this.#current();
    const buffer = this.#readback?.buffer;
    if (buffer === undefined) {
      throw new KernelError("ENODEV", "dispatch", "the device was closed");
    }
    const bytes = (areas.listOut + count) * 4;
    const since = Date.now();
    // Not with the caller's signal: the buffer must be free again for the next dispatch.
    await this.#gpu.lost.wait(buffer.mapAsync(MapMode.Read, 0, bytes), "dispatch");
    try {
      const words = new Uint32Array(buffer.getMappedRange(0, bytes));
      const found = words[Control.FaultCount];
      const code = words[Control.FatalCode] as FatalCode;
      return {
        completed: words[Control.Completed],
        doneInvocations: words[Control.DoneInvocations],
        progressed: words[Control.Progressed],
        unfinished: words[Control.Unfinished],
        turns: words[Control.Turns],
        failed: words.slice(areas.listOut, areas.listOut + words[Control.ListOutCount]),
        accessed: words.slice(areas.accessed, areas.faultList),
        faults: words.slice(areas.faultList, areas.faultList + Math.min(found, FAULT_CAPACITY)),
        replayNeeded: words[Control.ReplayNeeded],
        overflow: found > FAULT_CAPACITY,
        took: Date.now() - since,
        fatal:
          code === 0
            ? undefined
            : {
                code,
                address: words[Control.FatalAddress],
                workgroup: words[Control.FatalWorkgroup],
                lane: words[Control.FatalLane],
              },
      };
    } finally {
      buffer.unmap();
    }
  }

  destroy(): void {
    this.#control?.destroy();
    this.#head?.destroy();
    this.#readback?.destroy();
    this.#control = undefined;
    this.#head = undefined;
    this.#readback = undefined;
    this.#areas = undefined;
  }
}

/** What a fault list says, by rising page. */
export function decodeFaults(list: Uint32Array): { readonly page: number; readonly write: boolean }[] {
  const faults = Array.from(list, (entry) => ({
    page: entry >>> FaultBit.PageShift,
    write: (entry & FaultBit.Write) !== 0,
  }));
  return faults.sort((a, b) => a.page - b.page);
}
