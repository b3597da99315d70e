/** The device of a service, as a program uses it. */
import type {
  CompileOptions,
  DispatchOptions,
  DispatchStats,
  KernelReflection,
  SvmAdvice,
  WebGpuDeviceStats,
  WebGpuKernel,
} from "../drivers/webgpu/index.ts";
import { assertWait } from "../sync/index.ts";
import type { Channel } from "./protocol.ts";
import { SharedMapping, type SharedRange } from "./shared-mapping.ts";
import { SharedMemory } from "./shared-memory.ts";

/** What a variable is bound to: a whole mapping or a part. */
export type SharedTarget = SharedMapping | SharedRange;

/** Options of {@link SharedKernel.dispatch}: those of WebGpuKernel, with mappings of a client. */
export interface SharedDispatchOptions extends Omit<DispatchOptions, "bind" | "mm" | "onRound"> {
  readonly bind?: Readonly<Record<string, SharedTarget>> | undefined;
  /** In svm mode: the client's memory. */
  readonly mm?: SharedMemory | undefined;
}

/** A kernel of the service's device. */
export interface SharedKernel {
  /** See WebGpuKernel.mode. */
  readonly mode: WebGpuKernel["mode"];
  readonly device: SharedDevice;
  readonly name: string;
  readonly reflection: KernelReflection;
  /** See WebGpuKernel.dispatch. @throws KernelError as it does */
  dispatch(options: SharedDispatchOptions): Promise<DispatchStats>;
}

/** The device behind a client. Each method: ENODEV when the service was opened without one. */
export class SharedDevice {
  readonly label = "pagemirror";
  readonly #channel: Channel;

  /** @internal */
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Compiles a kernel. @throws KernelError as WebGpuDevice.kernel */
  async kernel(wgsl: string, options: CompileOptions = {}): Promise<SharedKernel> {
    assertWait("kernel", options);
    const { signal, ...rest } = options;
    const { id, name, mode, reflection } = await this.#channel.call("kernel", { wgsl, ...rest }, signal);
    return {
      device: this,
      name,
      mode,
      reflection,
      dispatch: async (options) => {
        assertWait(name, options);
        const { bind, mm, signal, ...rest } = options;
        const channel = this.#channel;
        const wired = Object.entries(bind ?? {}).map(([variable, target]) => [
          variable,
          SharedMapping.wired(target, channel, "dispatch", variable),
        ]);
        const space = mm === undefined ? undefined : SharedMemory.idOf(mm, channel, "dispatch");
        return await channel.call("dispatch", { ...rest, kernel: id, space, bind: Object.fromEntries(wired) }, signal);
      },
    };
  }

  /** See WebGpuDevice.prefetch. @throws KernelError as it does */
  async prefetch(
    target: SharedTarget,
    options: { readonly write?: boolean; readonly signal?: AbortSignal; readonly timeoutMs?: number } = {},
  ): Promise<number> {
    assertWait("prefetch", options);
    const { signal, ...rest } = options;
    const range = SharedMapping.wired(target, this.#channel, "prefetch", "the target");
    return await this.#channel.call("prefetch", { ...rest, ...range }, signal);
  }

  /** See WebGpuDevice.advise. @throws KernelError as it does */
  async advise(target: SharedTarget, advice: SvmAdvice): Promise<void> {
    const range = SharedMapping.wired(target, this.#channel, "advise", "the target");
    await this.#channel.call("advise", { ...range, advice });
  }

  /** Counts since the device was opened. */
  stats(): Promise<WebGpuDeviceStats> {
    return this.#channel.call("deviceStats", undefined);
  }

  /** What the device's memory holds. */
  async pageCounts(): Promise<WebGpuDeviceStats["pages"]> {
    return (await this.stats()).pages;
  }
}
