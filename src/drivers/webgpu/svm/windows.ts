/** How much of a grid is worked on with one set of done bits and logs. */
import { replayWords } from "./control-layout.ts";
import type { RoundsJob } from "./rounds.ts";

/** Workgroups of a window at most, and invocations. */
const WINDOW_WORKGROUPS = 65_536;
const WINDOW_INVOCATIONS = 2 ** 22;
/** Words of a window's logs of atomic operations at most, as long as one workgroup's fit: 32 MiB. */
const WINDOW_REPLAY_WORDS = 2 ** 23;
/** Workgroups of a window for a kernel. */
export function windowSize(job: RoundsJob): number {
  const [x, y, z] = job.grid;
  const logged = job.replayRecords === 0 ? 0 : replayWords(job.replayRecords, job.recordWords);
  const invocations = Math.min(WINDOW_INVOCATIONS, WINDOW_REPLAY_WORDS / Math.max(1, logged));
  const byInvocations = Math.max(1, Math.floor(invocations / job.invocationsPerWorkgroup));
  return Math.min(x * y * z, WINDOW_WORKGROUPS, byInvocations);
}

/**
 * Which invocation of a workgroup of `count` is the first to run after `lanes` of them from `first` on. After the last ones
 * come the first ones: the workgroup before may have left off anywhere, and no step may go past some of this one for ever.
 */
export function nextLane(first: number, lanes: number, count: number): number {
  return first + lanes < count ? first + lanes : 0;
}
