/** The first words of the control buffer, which the rounds of svm mode and their kernels share. */

/** Words of the header; the areas follow. */
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
  /** In: where the areas begin, in words. */
  DoneBase: 7,
  ListIn: 8,
  ListOut: 9,
  ReadBits: 10,
  WriteBits: 11,
  AccessedBits: 12,
  FaultList: 13,
  /** In: entries that the fault list holds. */
  FaultCapacity: 14,
  /** Out, zero before a round. */
  Completed: 16,
  ListOutCount: 17,
  FaultCount: 18,
  FatalCode: 19,
  FatalAddress: 20,
  FatalWorkgroup: 21,
  FatalLane: 22,
  DoneInvocations: 23,
  /** In: invocations whose local index is outside [LaneFirst, LaneEnd) rest this round. */
  LaneFirst: 24,
  LaneEnd: 25,
  /** In: the window's first workgroup; done bits and replay logs count from it. */
  WindowFirst: 26,
  /** In: where replay logs begin. */
  ReplayBase: 27,
} as const;

/** Why a kernel cannot go on: 0 it can; 1 read, 2 write of nothing; 3 write to read-only memory; 4 more stores than fit, read again. */
export type FatalCode = 0 | 1 | 2 | 3 | 4;
