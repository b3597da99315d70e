/** Whether plain typed arrays can page-fault on this machine, and why not. */
import { openUffd, trial } from "./descriptor.ts";
import { Libc, NoLibc } from "./libc.ts";

/** What {@link probeUserfaultfd} found. */
export interface UserfaultfdReport {
  readonly works: boolean;
  /** One sentence; with the remedy when it does not work. */
  readonly why: string;
  /** True when system calls (fs.read into a view) may meet absent pages. */
  readonly systemCalls: boolean;
}

/** The environment variable that turns userfaultfd off: "software" does, with "auto" and "userfaultfd" it is as without. */
export const MMU_VARIABLE = "PAGEMIRROR_MMU";

/** Tries everything that the userfaultfd MMU needs, and leaves nothing behind. */
export function probeUserfaultfd(): UserfaultfdReport {
  const no = (why: string): UserfaultfdReport => ({ works: false, why, systemCalls: false });
  const choice = process.env[MMU_VARIABLE] ?? "";
  if (choice === "software") {
    return no(`turned off by ${MMU_VARIABLE}=software: unset it`);
  }
  if (!["", "auto", "userfaultfd"].includes(choice)) {
    return no(`${MMU_VARIABLE}=${choice} is no MMU: set it to software, auto or userfaultfd, or unset it`);
  }
  // Undefined without Node's permission model.
  if (process.permission?.has("worker") === false) {
    return no("Node may not start threads: give it --allow-worker");
  }
  let libc: Libc;
  try {
    libc = Libc.load();
  } catch (error) {
    if (error instanceof NoLibc) {
      return no(error.message);
    }
    throw error;
  }
  try {
    const found = openUffd(libc);
    if (!("fd" in found)) {
      return no(`${found.why}: ${found.remedy}`);
    }
    const problem = trial(libc, found.fd);
    libc.close(found.fd);
    if (problem !== undefined) {
      return no(`${problem.why}: ${problem.remedy}`);
    }
    const { systemCalls } = found;
    const why = systemCalls
      ? "plain typed arrays page-fault, in system calls too"
      : "plain typed arrays page-fault; system calls into absent pages fail with EFAULT, so lease first (for all of it: vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd)";
    return { works: true, why, systemCalls };
  } finally {
    libc.dispose();
  }
}
