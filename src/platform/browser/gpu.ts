/** Opens a WebGPU adapter in a page or a worker, or says what is in the way. */
import { KernelError } from "../../base/index.ts";
import { type AdapterReport, type DescribedAdapter, describeAdapter } from "../adapter.ts";

/** An adapter that can give one device, as WebGPU has it. */
export interface BrowserAdapter {
  readonly gpu: GPUAdapter;
  readonly report: AdapterReport;
}

/**
 * Opens the browser's adapter.
 *
 * Errors: ENODEV the page is no secure context, the browser has no WebGPU, or it accepts no driver of this machine; each with
 * the remedy.
 */
export async function openBrowserAdapter(): Promise<BrowserAdapter> {
  const gpu: GPU | undefined = globalThis.navigator?.gpu;
  if (gpu === undefined) {
    throw new KernelError("ENODEV", "open", globalThis.isSecureContext === false ? INSECURE : ABSENT);
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) {
    throw new KernelError("ENODEV", "open", REFUSED);
  }
  return { gpu: adapter, report: report(adapter, "the browser chose it") };
}

/** The report on an adapter or a device that a page brought itself; of a device, what it was opened with. */
export function reportOn(gpu: GPUDevice | GPUAdapter): AdapterReport {
  const { limits, features } = gpu;
  const info = "requestDevice" in gpu ? gpu.info : gpu.adapterInfo;
  return report({ info, limits, features }, "the page chose it");
}

function report(adapter: DescribedAdapter, why: string): AdapterReport {
  return { ...describeAdapter(adapter), backend: "browser", why, driverFiles: [], tried: [] };
}

const INSECURE =
  "the page is no secure context, and browsers offer WebGPU to those only: serve it over https, or from localhost";
const ABSENT =
  "this browser has no WebGPU: use a current Chrome, Edge, Firefox or Safari, or turn WebGPU on in its settings";
const REFUSED =
  "the browser has WebGPU, but accepts no GPU of this machine: update the GPU's driver, and turn hardware acceleration on (chrome://gpu and about:support tell why)";

/** Whether waits for the GPU end only when something else is submitted meanwhile, or a tenth of a second late. */
export function queueNeedsNudging(): boolean {
  return /\bFirefox\//.test(globalThis.navigator?.userAgent ?? "");
}
