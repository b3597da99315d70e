/** A notifier that waits inside its callbacks, and sees what no notifier may see. */
import type { AddressSpace, MmuNotifierRange } from "../../mm/index.ts";
import { MmuNotifier, type MmuNotifierOps } from "../../mmu-notifier/index.ts";
import type { Host } from "../scenario.ts";

/** What the probe of one run knows. */
export class ProbeNotifier extends MmuNotifier {
  readonly name: string;
  /** Callbacks that are between their call and their end. */
  running = 0;
  frees = 0;
  readonly open = new Set<MmuNotifierRange>();

  constructor(name: string) {
    super();
    this.name = name;
  }
}

/** A table of callbacks that watch each other; one a run. */
export function probeOps(host: Host, made: ProbeNotifier[], prefix = "notifier"): MmuNotifierOps<ProbeNotifier> {
  const enter = (probe: ProbeNotifier, op: string): void => {
    host.note(() => `${probe.name}.${op}`);
    if (probe.frees > 0) {
      host.fail("I-MN-3", `${probe.name}: ${op} after it was freed`);
    }
    probe.running++;
  };
  const leave = (probe: ProbeNotifier, op: string): void => {
    probe.running--;
    if (probe.frees > 0) {
      host.fail("I-MN-3", `${probe.name}: freed while ${op} runs`);
    }
  };
  return {
    name: "probe",
    allocNotifier: (_mm: AddressSpace) => {
      const probe = new ProbeNotifier(`${prefix}${made.length + 1}`);
      made.push(probe);
      return probe;
    },
    freeNotifier(probe) {
      host.note(() => `${probe.name} is freed`);
      probe.frees++;
      if (probe.frees > 1) {
        host.fail("I-MN-3", `${probe.name}: freed twice`);
      }
      if (probe.running > 0) {
        host.fail("I-MN-3", `${probe.name}: freed while a callback runs`);
      }
    },
    async release(probe) {
      enter(probe, "release");
      await undefined;
      leave(probe, "release");
    },
    async invalidateRangeStart(probe, range): Promise<0> {
      enter(probe, "start");
      if (probe.open.has(range)) {
        host.fail("I-MN-1", `${probe.name}: the same invalidation starts twice`);
      }
      probe.open.add(range);
      await undefined;
      leave(probe, "start");
      return 0;
    },
    invalidateRangeEnd(probe, range) {
      enter(probe, "end");
      if (!probe.open.delete(range)) {
        host.fail("I-MN-1", `${probe.name}: an end without its start`);
      }
      leave(probe, "end");
    },
  };
}
