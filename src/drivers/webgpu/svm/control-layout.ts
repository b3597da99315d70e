/**
 * The header that the rounds of svm mode and their kernels share. Words marked In lie in a uniform buffer, which is cheap to
 * read; those marked Out at the same places of the control buffer, whose areas follow.
 */

/** Words of the header. */
export const CONTROL_HEADER_WORDS = 64;

/** Word numbers in the header. */
export const Control = {
  /** In: the logical grid, in workgroups. */
  GridX: 0,
  GridY: 1,
  GridZ: 2,
  /** In: first workgroup of a round that runs a range of them. */
  First: 3,
  /** In: workgroups of this round. */
  Count: 4,
  /** In: 0 runs the range, 1 the ids in the list. */
  Mode: 5,
  /** In: device pages of the page table. */
  Pages: 6,
  /** In: where the areas begin, in words. This one has a bit for each invocation that must run again. */
  DoneBase: 7,
  ListIn: 8,
  ListOut: 9,
  ReadBits: 10,
  WriteBits: 11,
  AccessedBits: 12,
  FaultList: 13,
  /** In: entries that the fault list holds. */
  FaultCapacity: 14,
  /** In: iterations that loops go on after a fault without meeting another page; 0 for {@link DEFAULT_FUEL}. */
  Fuel: 15,
  /** Out, zero before a round. */
  Completed: 16,
  ListOutCount: 17,
  FaultCount: 18,
  FatalCode: 19,
  FatalAddress: 20,
  FatalWorkgroup: 21,
  FatalLane: 22,
  /** Invocations that became done; those of workgroups that completed at once are not counted. */
  DoneInvocations: 23,
  /** In: invocations whose local index is outside [LaneFirst, LaneEnd) rest this round. */
  LaneFirst: 24,
  LaneEnd: 25,
  /** In: the window's first workgroup; done bits and replay logs count from it. */
  WindowFirst: 26,
  /** In: where replay logs begin, a column of words for all invocations of the window after the other. */
  ReplayBase: 27,
  /** In: invocations of the window. */
  ReplayStride: 28,
  /** In: records an invocation, see {@link replayWords}. */
  ReplayCapacity: 29,
  /** Out: records that some invocation needs to go on; zero while there is room. */
  ReplayNeeded: 30,
  /** Out: fatal accesses; the first one is described. */
  FatalCount: 31,
  /** In, for the compaction: invocations of a workgroup, 0 for kernels that settle their workgroups themselves. */
  Invocations: 32,
  /** In, of rounds with resume points: where invocations keep what they need to go on. */
  SpillBase: 33,
  /** In: the first workgroup that keeps something there, its first invocation, and how many of each workgroup do. */
  SpillFirst: 34,
  SpillLaneFirst: 35,
  SpillLanes: 36,
  /** In: pages that an invocation may miss in this round before its loops end; with resume points, ask for. */
  MostFaults: 37,
  /** Out: invocations that came to a resume point, or were done. */
  Progressed: 38,
  /** Out, with resume points and of scouts: invocations that ran and must run again. */
  Unfinished: 39,
  /** In: always 0. Added to an operand it makes one operation wait for the result of another. */
  Zero: 40,
  /** Out: resume points that were passed. */
  Turns: 41,
} as const;

/** Words at most for what invocations keep between rounds with resume points: 4 MiB. */
export const MOST_SPILL_WORDS = 2 ** 20;

/** WGSL that reads an In word; `name` is the uniform, an `array<vec4u>`. */
export function headerWord(word: number, name = "pm_head"): string {
  return `${name}[${word >> 2}].${"xyzw"[word & 3]}`;
}

/** WGSL type of the header in its uniform buffer. */
export const HEADER_TYPE = `array<vec4u, ${CONTROL_HEADER_WORDS / 4}>`;

/** Why a kernel cannot go on. */
export const Fatal = {
  None: 0,
  /** A load, a store of nothing. */
  ReadUnmapped: 1,
  WriteUnmapped: 2,
  WriteReadOnly: 3,
  /** More stores than the log holds, and loads of words that were stored. */
  StoreLogFull: 4,
  /** It took another way when it ran again. */
  NotRepeatable: 5,
  /** An index past the end of its span; the address is that of the span. */
  SpanIndex: 6,
  /** A read of a bound variable where the same run has stored; the address is the index. */
  BoundReread: 7,
} as const;

/** One of {@link Fatal}; 0 while all is well. */
export type FatalCode = (typeof Fatal)[keyof typeof Fatal];

/** Bits of a fault-list entry; the page lies above them. */
export const FaultBit = { Read: 1, Write: 2, PageShift: 2 } as const;

/** Pages that one run reports before its loops end, unless the round says more. */
export const MOST_MISSES = 32;

/** Iterations after a fault when the host names none: two times the words of a page. */
export const DEFAULT_FUEL = 8192;

/** Words of a record in the replay log: address, what was done, what it returned. */
export const REPLAY_RECORD = 3;

/** The same where the order in the workgroup matters: then one more than its number, the word before, the next record. */
export const ORDERED_RECORD = 6;

/** Words an invocation of a replay log with so many records of so many words: their count comes first. */
export function replayWords(records: number, recordWords: number): number {
  return 1 + records * recordWords;
}
