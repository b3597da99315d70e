/** What `pagemirror info` says about the GPU: which adapter was chosen, why, and what else was looked at. */

/** One thing that was looked at on the way to an adapter. */
export interface AdapterAttempt {
  /** What was looked at: "system Vulkan driver", "SwiftShader from @sparticuz/chromium". */
  readonly what: string;
  /** What came of it, one sentence. */
  readonly result: string;
  /** How to make it work; absent when it worked or when nothing can be done on this machine. */
  readonly remedy?: string;
}

/** The adapter that was chosen. */
export interface AdapterReport {
  readonly name: string;
  readonly vendor: string;
  /** "software" means that the CPU does the GPU's work. */
  readonly kind: "hardware" | "software";
  /** The API below WebGPU: "vulkan", "metal", "d3d12". */
  readonly backend: string;
  /** Why this adapter and no other, one sentence. */
  readonly why: string;
  /** The driver manifest and loader that this library brought along; empty for the system's own driver. */
  readonly driverFiles: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  readonly features: readonly string[];
  readonly tried: readonly AdapterAttempt[];
}
