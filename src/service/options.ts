/** What a program may choose when it opens PageMirror. */

/** Options of the device. */
export interface OpenOptions {
  /** The most bytes of GPU buffers that hold pages. */
  readonly deviceMemory?: number | undefined;
  /** "system", "swiftshader", or a part of an adapter's name. Default: the system's GPU, else SwiftShader. */
  readonly adapter?: string | undefined;
}

/** Options of the space and device behind a client. */
export interface ServiceOptions extends OpenOptions {
  /** False: no GPU is opened, and there are no kernels. Default true. */
  readonly device?: boolean | undefined;
  /** Pages that a page fault on host memory may bring along. Default 64. */
  readonly faultAround?: number | undefined;
  /** Runs the service thread on this processor only: faults are fastest when their thread runs on the same one. */
  readonly cpu?: number | undefined;
  /**
   * How long the service thread may do nothing before it is given up: threads that wait for it are released, its memory is
   * poisoned, and calls fail. An `error` event tells when a quarter of it has passed. Default 60,000; at least
   * 300; `Infinity`: never.
   */
  readonly stuckMs?: number | undefined;
}

/** Options of {@link openShared}. */
export interface SharedOptions extends ServiceOptions {
  /** Default "auto": userfaultfd where it works, else software; which, and why, is said once on a warning. */
  readonly mmu?: "auto" | "userfaultfd" | "software" | undefined;
}

/** Which MMU a service uses, and why. */
export interface MmuChoice {
  readonly name: "software" | "userfaultfd";
  readonly why: string;
}
