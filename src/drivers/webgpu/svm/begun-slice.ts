/** A slice whose first round is under way, beside the rounds of the one before it. */
import type { RoundReport } from "./control.ts";
import type { Demand } from "./service.ts";

/** Control buffers of a dispatch, by number: slices that are under way at once have different ones. */
export type Lane = 0 | 1;

/** Share of the pool that each of two slices under way may take; the rest is for what they have in common. */
export const BESIDE = 0.45;

/** A slice whose first round is submitted while the slice before it runs. */
export interface BegunSlice {
  readonly lane: Lane;
  /** Workgroups. */
  readonly first: number;
  readonly count: number;
  /** What was brought with it. */
  readonly predicted: readonly Demand[];
  /** Its first round is one of scouts, of which nobody is done. */
  readonly scouts: boolean;
  readonly quick: boolean;
  /** Resolves when the round was submitted, or will not be. */
  readonly submitted: Promise<void>;
  readonly report: Promise<RoundReport>;
}

/** Begins a slice: `run` makes its first round, and calls `onSubmitted`. Whoever has the slice waits for its report. */
export function beginSlice(
  slice: Omit<BegunSlice, "submitted" | "report">,
  run: (onSubmitted: () => void) => Promise<RoundReport>,
): BegunSlice {
  let onSubmitted: () => void = () => undefined;
  const submitted = new Promise<void>((resolve) => {
    onSubmitted = resolve;
  });
  const report = run(onSubmitted);
  report.then(onSubmitted, onSubmitted);
  const { lane, first, count, predicted, scouts, quick } = slice;
  return { lane, first, count, predicted, scouts, quick, submitted, report };
}

/** Waits until nothing of a slice that will not be gone on with is under way. */
export async function settled(slice: BegunSlice | undefined): Promise<void> {
  await slice?.report.catch(() => undefined);
}
