/** Uploads to frames of the pool: pages that follow each other in memory, in frames that need not. */
import { chain, isPromise, type MaybePromise, PAGE_SIZE, traceNow, traceOn } from "../../../base/index.ts";
import { inOneWindow, isZeroPage, type MemoryObject, PageFlag, readPages, type Transit } from "../../../mm/index.ts";
import { readBytes } from "../page-upload.ts";
import type { TransferBatch, UploadRun } from "../transfer-batch.ts";
import { WindowView } from "../window-view.ts";
import { SUB_PAGES } from "./page-entry.ts";
import type { SvmFrame } from "./svm-frame.ts";
import { traceFrameUpload } from "./trace-svm.ts";

/** CPU pages of one object that follow each other, and the frames that they go to. */
export interface FrameRun {
  readonly object: MemoryObject;
  /** First page of the object, and how many. */
  readonly page: number;
  readonly count: number;
  /** Frames of neighbouring device pages; the run begins at CPU page `sub` of the first. */
  readonly frames: readonly SvmFrame[];
  readonly sub: number;
  readonly transit: Transit;
}

/** Pages that are read from a pager in one go although their frames are scattered: 1 MiB. */
const READ_PAGES = 256;

/** Pages that are uploaded from where they are: 4 MiB. The GPU copies more while the processor fills the next staging buffer. */
const MOST_AT_ONCE = 1024;

/** Where the bytes of pages are, if that is one window, and nothing has to be waited for. */
function windowOf(object: MemoryObject, page: number, end: number, transit: Transit) {
  const flags = object.flagSummary(page, end);
  const elsewhere = PageFlag.Device | PageFlag.Poisoned | (transit === "isolated" ? 0 : PageFlag.Busy);
  const isThere = !(flags & elsewhere) && ((flags >> 8) & PageFlag.Uptodate) !== 0;
  return isThere && inOneWindow(page, end) ? object.windows.span(page, end) : undefined;
}

/** Collects uploads and clears of many runs, and records them on a batch. */
export class FrameUploads {
  readonly #uploads: { -readonly [K in keyof UploadRun]: UploadRun[K] }[] = [];
  readonly #clears: { readonly buffer: GPUBuffer; readonly offset: number; bytes: number }[] = [];
  readonly #traced: { readonly frame: SvmFrame; readonly sub: number; readonly pages: number }[] = [];
  /** The one that a run was read from last. */
  readonly #window = new WindowView();
  /** Pages whose bytes move. */
  pages = 0;

  add(run: FrameRun): void {
    for (let i = 0; i < run.count; ) {
      const zero = isZeroPage(run.object, run.page + i, run.transit);
      let stop = i + 1;
      while (stop < run.count && isZeroPage(run.object, run.page + stop, run.transit) === zero) {
        stop++;
      }
      if (zero) {
        this.#forEachPiece(run, i, stop, (buffer, offset, _at, bytes) => this.#clear(buffer, offset, bytes));
      } else {
        this.pages += stop - i;
        this.#upload(run, i, stop);
      }
      i = stop;
    }
  }

  #clear(buffer: GPUBuffer, offset: number, bytes: number): void {
    const last = this.#clears.at(-1);
    if (last !== undefined && last.offset + last.bytes === offset) {
      last.bytes += bytes;
    } else {
      this.#clears.push({ buffer, offset, bytes });
    }
  }

  #upload(run: FrameRun, from: number, to: number): void {
    const { object, page, transit } = run;
    if (traceOn) {
      this.#traced.push({
        frame: run.frames[Math.floor((run.sub + from) / SUB_PAGES)],
        sub: (run.sub + from) % SUB_PAGES,
        pages: to - from,
      });
    }
    for (let start = from; start < to; start += READ_PAGES) {
      const stop = Math.min(to, start + READ_PAGES);
      const pieces: { buffer: GPUBuffer; offset: number; at: number; bytes: number }[] = [];
      this.#forEachPiece(run, start, stop, (buffer, offset, at, bytes) => pieces.push({ buffer, offset, at, bytes }));
      const window = windowOf(object, page + start, page + stop, transit);
      const view = window && this.#window.of(window.buffer);
      const source =
        pieces.length === 1 || window !== undefined
          ? undefined
          : new ReadOnce(object, page + start, page + stop, transit);
      for (const { buffer, offset, at, bytes } of pieces) {
        this.#uploads.push({
          buffer,
          offset,
          bytes,
          source: view,
          sourceOffset: (window?.byteOffset ?? 0) + at,
          fill: (dst, byte) =>
            source === undefined
              ? readBytes(object, (page + start) * PAGE_SIZE + at + byte, dst, transit)
              : source.copy(at + byte, dst),
        });
      }
    }
  }

  /** Calls `piece` for the parts of pages `[from, to)` that lie in frames next to each other; `at` counts bytes from `from`. */
  #forEachPiece(
    run: FrameRun,
    from: number,
    to: number,
    piece: (buffer: GPUBuffer, offset: number, at: number, bytes: number) => void,
  ): void {
    for (let i = from; i < to; ) {
      const place = Math.floor((run.sub + i) / SUB_PAGES);
      const frame = run.frames[place];
      let last = place;
      let stop = Math.min(to, (place + 1) * SUB_PAGES - run.sub);
      while (stop < to && run.frames[last + 1].index === run.frames[last].index + 1) {
        last++;
        stop = Math.min(to, (last + 1) * SUB_PAGES - run.sub);
      }
      piece(
        frame.buffer.buffer,
        frame.offsetOf((run.sub + i) % SUB_PAGES),
        (i - from) * PAGE_SIZE,
        (stop - i) * PAGE_SIZE,
      );
      i = stop;
    }
  }

  /** Records everything. @throws KernelError what reading the pages throws; ENODEV; EINTR; ENOMEM */
  record(batch: TransferBatch): MaybePromise<void> {
    for (const { buffer, offset, bytes } of this.#clears) {
      batch.clear(buffer, offset, bytes);
    }
    if (this.pages > MOST_AT_ONCE) {
      for (const upload of this.#uploads) {
        upload.source = undefined;
      }
    }
    const since = traceNow();
    const uploaded = batch.upload(this.#uploads);
    const traced = this.#traced.splice(0);
    return traced.length === 0 ? uploaded : chain(uploaded, () => traceFrameUpload(traced, since));
  }
}

/** Pages read in one go, at the first time a piece of them is asked for. */
class ReadOnce {
  readonly #read: () => MaybePromise<Uint8Array>;
  #bytes: MaybePromise<Uint8Array> | undefined;

  constructor(object: MemoryObject, page: number, end: number, transit: Transit) {
    this.#read = () => {
      const bytes = new Uint8Array((end - page) * PAGE_SIZE);
      const read = readPages(object, page, end, bytes, transit);
      return isPromise(read) ? read.then(() => bytes) : bytes;
    };
  }

  copy(at: number, dst: Uint8Array): MaybePromise<void> {
    this.#bytes ??= this.#read();
    const put = (bytes: Uint8Array) => {
      this.#bytes = bytes;
      dst.set(bytes.subarray(at, at + dst.length));
    };
    return isPromise(this.#bytes) ? this.#bytes.then(put) : put(this.#bytes);
  }
}
