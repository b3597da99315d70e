/** The generated entry point of the pipeline with resume points. */
import { Control, Fatal, headerWord } from "./control-layout.ts";
import { aloneHead, dieIfMixed, type EntryShape, LOGICAL, probes, rewind, unwritten } from "./entry.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import type { ResumeText } from "./resume-state.ts";

/** Of an invocation in a round that are counted: the sum has to fit a word. */
const MOST_TURNS = 4095;

/**
 * Each invocation for itself, from where it was left. One that is left again keeps what it was at the last resume point; one
 * that ran out of room for stores, or has writes to variables of its own to make, goes back there by itself, and stores directly.
 */
export function resumingEntry(shape: EntryShape, features: KernelFeatures, resume: ResumeText): string {
  const records = features.replayRecords > 0;
  const place = `pm_kept.${resume.place}`;
  const again = probes(features)
    ? `if (pm_rewind == 0u) {
        if (pm_committing != 0u || ${unwritten(features)} == 0u || pm_hurt != 0u) { break; }
        ${dieIfMixed(features, "break;")}
      }
      pm_rewind = 0u;
      ${features.defersBound ? "pm_again = 0u;" : ""}
      ${rewind(shape, features)}`
    : "break;";
  return `${LOGICAL}
${aloneHead(shape)}
    pm_begin();
    ${records ? "pm_replay_begin(pm_bit);" : ""}
    pm_spill = ${headerWord(Control.SpillBase)} + ${resume.words}u *
      ((pm_workgroup - ${headerWord(Control.SpillFirst)}) * ${headerWord(Control.SpillLanes)}
        + pm_lidx - ${headerWord(Control.SpillLaneFirst)});
    pm_load_kept();
    loop {
      pm_skip = ${place} != 0u;
      if (pm_skip) { pm_restore(); }
      ${resume.entry}(${shape.args.join(", ")});
      if ((pm_hurt | pm_rewind) == 0u) {
        // It took another way to the place than when it was left there.
        if (pm_skip) { pm_die(${Fatal.NotRepeatable}u, 0u); }
        ${records ? "pm_replay_end();" : ""}
      }
      ${again}
    }
    if (pm_hurt == 0u) {
      pm_commit_log();
      pm_open = false;
      pm_passed++;
    } else {
      if (pm_fault == 0u) { pm_report(); }
      if (pm_passed != 0u) { pm_save_kept(); }
      atomicAdd(&pm_ctl[${Control.Unfinished}], 1u);
    }
    atomicAdd(&pm_ctl[${Control.Progressed}], min(1u, pm_passed));
    atomicAdd(&pm_ctl[${Control.Turns}], min(${MOST_TURNS}u, pm_passed));
  }
  if (pm_open != pm_waits) {
    atomicXor(&pm_ctl[pm_bits], pm_mask);
    if (!pm_open) { atomicAdd(&pm_ctl[${Control.DoneInvocations}], 1u); }
  }
}
`;
}
