/** What is said about a GPU: which adapter was chosen, why, and what else was looked at. */

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
  /** The API below WebGPU: "vulkan", "metal", "d3d12"; "browser" in one, which does not tell. */
  readonly backend: string;
  /** Why this adapter and no other, one sentence. */
  readonly why: string;
  /** The driver manifest and loader that this library brought along; empty for the system's own driver. */
  readonly driverFiles: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  readonly features: readonly string[];
  readonly tried: readonly AdapterAttempt[];
}

/** An adapter, or a device as what it came from. */
export type DescribedAdapter = Pick<GPUAdapter, "info" | "limits" | "features">;

/** What an adapter says of itself: the parts of a report that do not depend on how it was found. */
export function describeAdapter(
  adapter: DescribedAdapter,
): Pick<AdapterReport, "name" | "vendor" | "kind" | "limits" | "features"> {
  const limits: Record<string, number> = {};
  // The limits are getters of the prototype, which Object.entries does not list.
  for (const name in adapter.limits) {
    const value: unknown = Reflect.get(adapter.limits, name);
    if (typeof value === "number") {
      limits[name] = value;
    }
  }
  return {
    name: adapterName(adapter),
    vendor: adapter.info.vendor,
    kind: adapterKind(adapter),
    limits,
    features: [...adapter.features].map(String).sort(),
  };
}

/** The name that people know an adapter by, with its driver where that is told. */
export function adapterName(adapter: Pick<GPUAdapter, "info">): string {
  const { device, description, architecture, vendor } = adapter.info;
  const name = device.replace(/-+$/, "") || architecture || vendor || "unnamed adapter";
  return description === "" ? name : `${name} (${description})`;
}

/** Whether an adapter is a GPU, or a program on the CPU. */
export function adapterKind(adapter: Pick<GPUAdapter, "info">): "hardware" | "software" {
  const { info } = adapter;
  const byName = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b/i.test(
    `${info.architecture} ${info.device} ${info.description}`,
  );
  return info.isFallbackAdapter || byName ? "software" : "hardware";
}
