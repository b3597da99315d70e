/** What a kernel does, as far as its two pipelines depend on it. */

/** How a kernel's atomics are made to apply exactly once. */
export type AtomicScheme =
  | "none"
  /** No result is used: they wait in the store log. */
  | "logged"
  /** Applied where they stand; the replay log keeps their results. */
  | "immediate";

/** Opcodes of what a word in the store log, or an atomic, does. */
export const Op = {
  Store: 0,
  Add: 1,
  Min: 2,
  Max: 3,
  And: 4,
  Or: 5,
  Xor: 6,
  SignedMin: 7,
  SignedMax: 8,
  Load: 9,
  CompareExchange: 10,
} as const;

export interface KernelFeatures {
  /** Names of the functions that the kernel can reach. */
  readonly functions: ReadonlySet<string>;
  readonly loads: boolean;
  /** Stores, or atomics that change memory. */
  readonly writes: boolean;
  readonly atomics: AtomicScheme;
  /** Barriers, workgroup memory or subgroup operations: one invocation's fault is its workgroup's. */
  readonly collective: boolean;
  /** `workgroupUniformLoad`: by it what was loaded can decide how often a whole workgroup goes through a loop. */
  readonly loadsUniform: boolean;
  /** Stores must be seen by the workgroup's other invocations after a `storageBarrier`. */
  readonly sharedStores: boolean;
  /** Entries of the store log. */
  readonly logEntries: number;
  /** More stores than that can happen. */
  readonly logCanOverflow: boolean;
  /** Some store is in a loop: the log looks for an entry of the same word. */
  readonly storesInLoops: boolean;
  /** An invocation stores once, outside of loops, and accesses nothing after it. */
  readonly endsWithStore: boolean;
  /** Records an invocation in the replay log; 0 without one. */
  readonly replayRecords: number;
  /** Loads in a workgroup that runs again must not find what it has changed by atomics after them. */
  readonly replayOrder: boolean;
  /** Writes to variables of the kernel's own wait for a second run. */
  readonly defersBound: boolean;
  /** Variables of its own that it both reads and stores to. */
  readonly reread: readonly string[];
}
