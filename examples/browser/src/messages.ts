/** What the page and its worker say to each other. */

/** What the page asks for. */
export interface Job {
  readonly file: File;
  readonly kernel: "bytes" | "find";
  /** What to find. */
  readonly text: string;
  /** Bytes of GPU memory that may be used. */
  readonly deviceMemory: number;
}

/** What is known as soon as the device is open. */
export interface Opened {
  readonly adapter: string;
  /** The most bytes that this device binds at once. */
  readonly bindingLimit: number;
}

/** How a run went. */
export interface Outcome {
  /** Each byte's count, or the matches in each 1/256 of the file. */
  readonly counts: Uint32Array;
  readonly matches: number;
  readonly gpuMs: number;
  readonly cpuMs: number;
  readonly rounds: number;
  readonly bytesToDevice: number;
  /** Whether the CPU came to the same result. */
  readonly same: boolean;
}

export type ToWorker = { readonly run: Job } | { readonly stop: true };

export interface FromWorker {
  readonly opened?: Opened;
  /** Rows for the inspector's store. */
  readonly events?: ArrayBuffer;
  /** What is going on, and how much of it is done, from 0 to 1. */
  readonly progress?: { readonly what: string; readonly done: number };
  readonly outcome?: Outcome;
  readonly failure?: string;
}
