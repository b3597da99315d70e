/** One dispatch or prefetch among those that share a device's pool: what it needs, waits for and costs. */
import type { WaitOptions } from "../../../sync/index.ts";
import type { BoundRanges } from "./bound-ranges.ts";
import type { SvmFrame } from "./svm-frame.ts";

/** What one dispatch has cost so far. */
export interface SvmTally {
  bytesToDevice: number;
  pagesUploaded: number;
  /** Pages that became device-private. */
  pagesMigrated: number;
  /** Device pages that came beside those that were asked for, and those of them that were used. */
  pagesPrefetched: number;
  prefetchHits: number;
  /** Frames that were given up for it. */
  evictions: number;
  restarts: number;
}

/** The tally of a dispatch that has cost nothing yet. */
export function newTally(): SvmTally {
  return {
    bytesToDevice: 0,
    pagesUploaded: 0,
    pagesMigrated: 0,
    pagesPrefetched: 0,
    prefetchHits: 0,
    evictions: 0,
    restarts: 0,
  };
}

/** How a submission waits, what it has to bring beside the demanded pages, and for whom. */
export interface SvmWork extends WaitOptions {
  readonly timeoutMs: number;
  readonly op: string;
  readonly bound?: BoundRanges | undefined;
  readonly claim: FrameClaim;
  readonly tally: SvmTally;
}

/** Frames that one dispatch's running workgroups asked for: they are not given up for others, as long as others can wait. */
export class FrameClaim {
  readonly #frames = new Set<SvmFrame>();

  covers(frame: SvmFrame | undefined): boolean {
    return frame !== undefined && this.#frames.has(frame);
  }

  add(frame: SvmFrame): void {
    if (!this.#frames.has(frame)) {
      this.#frames.add(frame);
      frame.claims++;
    }
  }

  /** Frames that still hold what was asked for. */
  count(): number {
    let count = 0;
    for (const frame of this.#frames) {
      count += frame.isPlaced ? 1 : 0;
    }
    return count;
  }

  /** What was brought for a guess and not used since is not needed after all. */
  dropUnused(): void {
    for (const frame of this.#frames) {
      if (frame.isUnused) {
        frame.claims--;
        this.#frames.delete(frame);
      }
    }
  }

  clear(): void {
    for (const frame of this.#frames) {
      frame.claims--;
    }
    this.#frames.clear();
  }
}
