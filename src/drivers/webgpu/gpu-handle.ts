/** A GPUDevice with what every part of the driver needs beside it. */
import { KernelError, type LedgerEntry, ledgerTrack, warnOn } from "../../base/index.ts";
import { DirectUploads, type DirectWrites } from "./direct-upload.ts";
import { gpuMessage } from "./gpu-message.ts";
import { DeviceLost, type WaitListener } from "./lost.ts";
import { QueueNudge } from "./queue-nudge.ts";

/** Who destroys the GPUDevice: this library ("owned") or whoever made it ("borrowed"). */
export type Ownership = "owned" | "borrowed";

/** What is done while somebody waits for the GPU: empty submissions, or what the platform does. */
export type WhileWaiting = "nudge" | WaitListener | undefined;

/** What a platform knows of an adapter. */
export interface AdapterHints {
  readonly waiting?: WhileWaiting;
  readonly writing?: DirectWrites | undefined;
}

/** Limits that are worth more than WebGPU's defaults to memory and compute. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxUniformBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxUniformBuffersPerShaderStage",
  "maxBindingsPerBindGroup",
  "maxBindGroups",
  "minStorageBufferOffsetAlignment",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
] as const satisfies readonly (keyof GPUSupportedLimits)[];

/** The limits that matter here, as plain numbers: each that is asked of a device is a call into the browser or Dawn. */
export type GpuLimits = Pick<GPUSupportedLimits, (typeof WANTED_LIMITS)[number]>;

function limitsOf({ limits }: GPUDevice): GpuLimits {
  return Object.fromEntries(WANTED_LIMITS.map((name) => [name, limits[name]])) as unknown as GpuLimits;
}

/** A GPUDevice, the knowledge of its loss, and its end. */
export class GpuHandle {
  /** Bytes of the buffers that this library has made here, of all kinds. */
  bufferBytes = 0;
  readonly device: GPUDevice;
  readonly queue: GPUQueue;
  readonly limits: GpuLimits;
  readonly label: string;
  readonly ownership: Ownership;
  readonly lost: DeviceLost;
  /** Where uploads need no staging. */
  readonly direct: DirectUploads | undefined;
  readonly #ledger: LedgerEntry;
  readonly #refused = (event: GPUUncapturedErrorEvent): void => {
    event.preventDefault();
    warnOn(
      !this.lost.isLost,
      "I-GPU-1",
      () => `the GPU refused a command of device "${this.label}": ${event.error.message}`,
    );
  };

  constructor(device: GPUDevice, label: string, ownership: Ownership, { waiting, writing }: AdapterHints = {}) {
    this.device = device;
    this.queue = device.queue;
    this.limits = limitsOf(device);
    this.label = label;
    this.ownership = ownership;
    this.lost = new DeviceLost(device, label, waiting === "nudge" ? new QueueNudge(device.queue) : waiting);
    this.direct = writing && new DirectUploads(device.queue, writing);
    this.#ledger = ledgerTrack("gpu device");
    if (ownership === "owned") {
      device.addEventListener("uncapturederror", this.#refused);
    }
  }

  /** Ends the handle, and the device when it is owned. Waits that are going on end with ENODEV. Idempotent. */
  destroy(): void {
    this.lost.mark(this.ownership === "owned" ? "it was destroyed" : "the library let go of it");
    if (this.ownership === "owned") {
      this.device.destroy();
      // Dawn holds its listeners, and this one holds the device: neither would ever be collected, nor the device's threads.
      this.device.removeEventListener("uncapturederror", this.#refused);
    }
    this.#ledger.end();
  }
}

/** Takes a GPUDevice that somebody else made and will destroy. */
export function adoptGpuDevice(
  device: GPUDevice,
  label = device.label || "adopted device",
  hints?: AdapterHints,
): GpuHandle {
  return new GpuHandle(device, label, "borrowed", hints);
}

/** Features that WGSL kernels can use. */
const WANTED_FEATURES: readonly string[] = ["shader-f16", "subgroups", "timestamp-query"];

/**
 * Opens the adapter's device with the adapter's real limits and every feature that a kernel can use.
 *
 * Errors: ENODEV when the adapter gives no device; an adapter gives only one.
 */
export async function openGpuDevice(adapter: GPUAdapter, label: string, hints?: AdapterHints): Promise<GpuHandle> {
  const requiredLimits: Record<string, number> = {};
  for (const name of WANTED_LIMITS) {
    const value = adapter.limits[name];
    if (typeof value === "number") {
      requiredLimits[name] = value;
    }
  }
  const requiredFeatures = [...adapter.features].filter((name) => WANTED_FEATURES.includes(name)) as GPUFeatureName[];
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({ label, requiredLimits, requiredFeatures });
  } catch (error) {
    const why = gpuMessage(error instanceof Error ? error.message : String(error));
    throw new KernelError(
      "ENODEV",
      "open",
      `the adapter gives no device (${why}): open the adapter anew for each device`,
      { cause: error },
    );
  }
  return new GpuHandle(device, label, "owned", hints);
}
