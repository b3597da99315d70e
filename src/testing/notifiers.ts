/** Notifiers for tests. */
import { MmuNotifier, type MmuNotifierOps } from "../mmu-notifier/index.ts";

/** What was called, in order, and the table that notes it. */
export interface Log {
  readonly events: string[];
  readonly ops: MmuNotifierOps;
}

/** A table whose every callback goes into the log. */
export function logging(more: Partial<MmuNotifierOps> = {}): Log {
  const events: string[] = [];
  return {
    events,
    ops: {
      name: "test",
      allocNotifier: () => {
        events.push("alloc");
        return new MmuNotifier();
      },
      freeNotifier: () => void events.push("free"),
      release: () => void events.push("release"),
      invalidateRangeStart: () => {
        events.push("start");
        return 0;
      },
      invalidateRangeEnd: () => void events.push("end"),
      ...more,
    },
  };
}
