/**
 * Opens a WebGPU adapter in Node through Dawn: the system's GPU when there is one, else SwiftShader from an npm package.
 */
import type { create as createDawn } from "webgpu";
import { KernelError } from "../../base/index.ts";
import { type AdapterAttempt, type AdapterReport, adapterKind, adapterName, describeAdapter } from "../adapter.ts";
import { loadKoffi, loadLibrary, withNativeEnvironment } from "./native.ts";
import { PollPause } from "./poll-pause.ts";
import { SWIFTSHADER_PACKAGE, type SwiftShaderFiles, swiftShaderFiles } from "./swiftshader.ts";
import { systemVulkan } from "./system-vulkan.ts";
import { UnsharedViews } from "./unshared-views.ts";

/** Which adapter to open. */
export interface OpenDawnOptions {
  /**
   * "system" for the system's driver whatever it runs on, "swiftshader" for the software driver that this library brings,
   * or a part of an adapter's name. The default is the system's GPU, else SwiftShader.
   */
  readonly adapter?: string | undefined;
}

/** An adapter that can give one device, as WebGPU has it. */
export interface OpenAdapter {
  readonly adapter: GPUAdapter;
  readonly report: AdapterReport;
  /** For `WebGpuDriver.open`: leaves the processor to an adapter that is a program. */
  readonly waiting: PollPause | undefined;
  /** For `WebGpuDriver.open`: of an adapter that is a program, whose memory is the processor's. */
  readonly writing: UnsharedViews | undefined;
  /** Lets go of Dawn; call it after the device was destroyed. Idempotent. */
  close(): void;
}

type Dawn = { readonly create: typeof createDawn };

/** How often {@link untilDawnRests} looks. */
const REST_LOOK_MS = 1;

/**
 * Resolves when Dawn has nothing under way in this thread, which it looks for in each turn of the event loop: soon after the
 * device was destroyed. A thread that ends earlier takes the process along.
 */
export function untilDawnRests(): Promise<void> {
  return new Promise((resolve) => {
    const looking = setInterval(() => {
      if (!process.getActiveResourcesInfo().includes("Immediate")) {
        clearInterval(looking);
        resolve();
      }
    }, REST_LOOK_MS);
  });
}

interface Found {
  readonly adapter: GPUAdapter;
  readonly instance: GPU;
  readonly driverFiles: readonly string[];
}

/** Dawn ends under its devices when the object that `create` returned is collected. */
const openInstances = new Set<GPU>();
/**
 * For so long an instance is kept when it is not needed any more: Dawn looks once in a turn of the event loop for what its
 * devices have done, until their promises are settled, and that one look uses an instance whether it was collected or not.
 */
const LINGER_MS = 2000;
const IMPOSSIBLE_NAME = "adapter=\u0001";
let former: Promise<unknown> = Promise.resolve();

/**
 * Opens an adapter.
 *
 * Errors: ENODEV when Dawn does not load, nothing here is an adapter, or none has the name that was asked for; the message
 * lists what was tried and the remedy.
 */
export function openDawn(options: OpenDawnOptions = {}): Promise<OpenAdapter> {
  // One at a time: the driver is chosen by the environment of the whole process.
  const opened = former.then(() => open(options.adapter));
  former = opened.catch(() => undefined);
  return opened;
}

async function open(wanted: string | undefined): Promise<OpenAdapter> {
  const dawn = await loadDawn();
  const tried: AdapterAttempt[] = [];
  const key = wanted?.toLowerCase();
  if (key === "swiftshader") {
    const found = await trySwiftShader(dawn, tried);
    return found === undefined ? fail(wanted, tried) : opened(found, tried, `--adapter ${wanted} asks for it`);
  }
  if (key === "system") {
    const found = await trySystem(dawn, tried, { software: true, name: undefined });
    return found === undefined ? fail(wanted, tried) : opened(found, tried, `--adapter ${wanted} asks for it`);
  }
  if (wanted !== undefined) {
    const found =
      (await trySystem(dawn, tried, { software: true, name: wanted })) ?? (await trySwiftShader(dawn, tried, wanted));
    return found === undefined ? fail(wanted, tried) : opened(found, tried, `its name contains "${wanted}"`);
  }
  const system = await trySystem(dawn, tried, { software: false, name: undefined });
  if (system !== undefined) {
    return opened(system, tried, "it is the system's GPU");
  }
  const swiftShader = await trySwiftShader(dawn, tried);
  if (swiftShader !== undefined) {
    return opened(
      swiftShader,
      tried,
      `the system has no GPU that Dawn can use, and ${SWIFTSHADER_PACKAGE} carries a software driver`,
    );
  }
  const software = await trySystem(dawn, tried, { software: true, name: undefined });
  return software === undefined
    ? fail(undefined, tried)
    : opened(software, tried, "there is no GPU, and this software driver is installed");
}

async function loadDawn(): Promise<Dawn> {
  try {
    return await import("webgpu");
  } catch (error) {
    const why = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    throw new KernelError(
      "ENODEV",
      "adapter",
      `Dawn does not load on ${process.platform} ${process.arch} (${why}): run "npm install webgpu" on macOS, Windows or a Linux with glibc`,
      { cause: error },
    );
  }
}

interface SystemChoice {
  /** Takes a driver that runs on the CPU too. */
  readonly software: boolean;
  /** A part of the adapter's name. */
  readonly name: string | undefined;
}

async function trySystem(dawn: Dawn, tried: AdapterAttempt[], choice: SystemChoice): Promise<Found | undefined> {
  const what = `system ${backendName()} driver`;
  const driverFiles: string[] = [];
  if (process.platform === "linux") {
    const blocked = await prepareSystemVulkan(choice, driverFiles);
    if (blocked !== undefined) {
      tried.push({ what, ...blocked });
      return undefined;
    }
  }
  const names = choice.name === undefined ? [] : await adapterNames(dawn);
  const name = names.find((entry) => entry.toLowerCase().includes(String(choice.name).toLowerCase()));
  if (choice.name !== undefined && name === undefined) {
    tried.push({
      what,
      result: names.length === 0 ? "no adapter" : `has ${names.map((entry) => `"${entry}"`).join(", ")}`,
    });
    return undefined;
  }
  const found = await request(dawn, name === undefined ? [] : [`adapter=${name}`], driverFiles);
  if (found instanceof Error) {
    tried.push({ what, result: `no adapter (${firstLine(found)})`, remedy: "install or repair the GPU's driver" });
    return undefined;
  }
  if (!choice.software && adapterKind(found.adapter) === "software") {
    openInstances.delete(found.instance);
    tried.push({
      what,
      result: `"${adapterName(found.adapter)}" runs on the CPU`,
      remedy: "--adapter system takes it all the same",
    });
    return undefined;
  }
  tried.push({ what, result: `"${adapterName(found.adapter)}"` });
  return found;
}

/** Makes a Vulkan loader available; returns why that is no use or not possible. */
async function prepareSystemVulkan(
  choice: SystemChoice,
  driverFiles: string[],
): Promise<{ readonly result: string; readonly remedy: string } | undefined> {
  const { hardware, software, absent } = systemVulkan();
  if (hardware.length === 0 && !(choice.software && software.length > 0)) {
    if (absent.length > 0) {
      return {
        result: `there is no GPU for the drivers that are installed (no device file, as /dev/dri/renderD*, for ${absent.join(", ")})`,
        remedy: "give a container the GPU's device files (docker run --device /dev/dri)",
      };
    }
    return {
      result:
        software.length === 0
          ? "no Vulkan driver is installed"
          : `only a driver for the CPU is installed (${software.join(", ")})`,
      remedy: "install the GPU vendor's Vulkan driver",
    };
  }
  const koffi = await loadKoffi();
  if (koffi instanceof Error || loadLibrary(koffi, "libvulkan.so.1") === undefined) {
    return undefined;
  }
  // A container often has the vendor's driver but no loader: the packaged one serves as well.
  const packaged = await swiftShaderFiles().catch((error: unknown) => error);
  if (packaged instanceof Error || loadLibrary(koffi, (packaged as SwiftShaderFiles).loader) !== undefined) {
    return { result: "a driver is installed, but no Vulkan loader", remedy: "install libvulkan1 (vulkan-loader)" };
  }
  driverFiles.push((packaged as SwiftShaderFiles).loader);
  return undefined;
}

async function trySwiftShader(dawn: Dawn, tried: AdapterAttempt[], name?: string): Promise<Found | undefined> {
  const what = `SwiftShader from ${SWIFTSHADER_PACKAGE}`;
  let files: SwiftShaderFiles;
  try {
    files = await swiftShaderFiles();
  } catch (error) {
    if (!(error instanceof KernelError)) {
      throw error;
    }
    tried.push({ what, ...splitRemedy(error.why) });
    return undefined;
  }
  const koffi = await loadKoffi();
  if (koffi instanceof Error) {
    tried.push({
      what,
      result: `the optional package koffi does not load (${firstLine(koffi)})`,
      remedy: 'run "npm install koffi"',
    });
    return undefined;
  }
  const failure = loadLibrary(koffi, files.loader);
  if (failure !== undefined) {
    tried.push({
      what,
      result: `${files.loader} does not load (${firstLine(failure)})`,
      remedy: `remove ${files.folder} and try again`,
    });
    return undefined;
  }
  // VK_ICD_FILENAMES is what loaders before 1.3.207 read; the system's may have been loaded first.
  const environment = { VK_DRIVER_FILES: files.manifest, VK_ICD_FILENAMES: files.manifest };
  const found = await withNativeEnvironment(koffi, environment, () =>
    request(dawn, [], [files.manifest, files.loader]),
  );
  if (found instanceof Error) {
    tried.push({ what, result: `no adapter (${firstLine(found)})`, remedy: `remove ${files.folder} and try again` });
    return undefined;
  }
  const where = files.spare === undefined ? "" : `, unpacked into ${files.folder}: ${files.spare}`;
  tried.push({ what, result: `"${adapterName(found.adapter)}"${where}` });
  if (
    name !== undefined &&
    !`${adapterName(found.adapter)} SwiftShader Device (Subzero)`.toLowerCase().includes(name.toLowerCase())
  ) {
    openInstances.delete(found.instance);
    return undefined;
  }
  return found;
}

async function request(dawn: Dawn, flags: string[], driverFiles: readonly string[]): Promise<Found | Error> {
  try {
    const instance = dawn.create(flags);
    const adapter = await instance.requestAdapter({ powerPreference: "high-performance" });
    if (adapter === null) {
      return new Error("Dawn accepts no driver");
    }
    openInstances.add(instance);
    return { adapter, instance, driverFiles };
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Dawn lists its adapters only in the error for one that does not exist. */
async function adapterNames(dawn: Dawn): Promise<string[]> {
  const refused = await request(dawn, [IMPOSSIBLE_NAME], []);
  return refused instanceof Error ? [...refused.message.matchAll(/name: '(.*)'/g)].map((match) => match[1] ?? "") : [];
}

async function unsharedViews(): Promise<UnsharedViews | undefined> {
  const koffi = await loadKoffi();
  return koffi instanceof Error ? undefined : new UnsharedViews(koffi);
}

async function opened(found: Found, tried: readonly AdapterAttempt[], why: string): Promise<OpenAdapter> {
  const { adapter, instance, driverFiles } = found;
  const report: AdapterReport = {
    ...describeAdapter(adapter),
    backend: backendName().toLowerCase(),
    why,
    driverFiles,
    tried,
  };
  const software = report.kind === "software";
  return {
    adapter,
    report,
    waiting: software ? new PollPause() : undefined,
    writing: software ? await unsharedViews() : undefined,
    close: () => void setTimeout(() => openInstances.delete(instance), LINGER_MS).unref(),
  };
}

function fail(wanted: string | undefined, tried: readonly AdapterAttempt[]): never {
  const said = tried.map(
    ({ what, result, remedy }) => `${what}: ${result}${remedy === undefined ? "" : ` (${remedy})`}`,
  );
  // The system's driver is tried a second time, for one that runs on the CPU.
  const list = [...new Set(said)].join("; ");
  const name = wanted === undefined ? "there is no adapter here" : `no adapter here is "${wanted}"`;
  throw new KernelError(
    "ENODEV",
    "adapter",
    `${name}; ${list}${wanted === undefined ? "" : '; leave out --adapter, or use "system", "swiftshader" or a part of a name listed'}`,
  );
}

function backendName(): string {
  return process.platform === "darwin" ? "Metal" : process.platform === "win32" ? "D3D12" : "Vulkan";
}

function splitRemedy(why: string): { result: string; remedy?: string } {
  const cut = why.indexOf(": ");
  return cut < 0 ? { result: why } : { result: why.slice(0, cut), remedy: why.slice(cut + 2) };
}

function firstLine(error: Error): string {
  return error.message.split("\n")[0]?.trim() ?? "";
}
