/** Runs the kernel of a plan over its mappings, bound to variables or followed by address. */
import { KernelError } from "../base/index.ts";
import type { DispatchStats, WebGpuKernel } from "../drivers/webgpu/index.ts";
import type { Mapping } from "../mm/index.ts";
import type { PageMirror } from "../node.ts";
import { resolveParams } from "./param-spec.ts";
import type { Progress } from "./progress.ts";
import { checkWorkgroups, defaultWorkgroups, planBindings, visibleLength } from "./run-bind.ts";
import { mapSource } from "./run-mapping.ts";
import type { MapPlan, RunPlan } from "./run-plan.ts";
import { formatBytes } from "./size.ts";

/** A mapping and as much of it, from its start, as the kernel could reach. */
export interface Reached {
  readonly map: MapPlan;
  readonly mapping: Mapping;
  readonly length: number;
}

/** What the run did, before its outputs. */
export interface Ran {
  readonly mode: "bind" | "svm";
  readonly reached: readonly Reached[];
  readonly stats: DispatchStats;
}

/**
 * Compiles the kernel and runs it.
 * @throws KernelError EINVAL a mode that does not fit the kernel, no workgroups where they are needed; what planning the
 *   bindings, mapping, compiling and dispatching throw
 */
export async function dispatchPlan(pm: PageMirror, plan: RunPlan, progress: Progress): Promise<Ran> {
  const kernel = await pm.device.kernel(plan.wgsl, {
    name: `kernel ${plan.kernelPath}`,
    ...(plan.entry === undefined ? {} : { entryPoint: plan.entry }),
  });
  checkMode(kernel, plan);
  return kernel.mode === "bind" ? dispatchBound(pm, kernel, plan, progress) : dispatchSvm(pm, kernel, plan, progress);
}

function checkMode({ mode }: WebGpuKernel, plan: RunPlan): void {
  if (plan.mode === "bind" && mode === "svm") {
    const why =
      "--mode bind: the kernel calls pm_ functions, which follow addresses: leave --mode out, or say --mode svm";
    throw new KernelError("EINVAL", "run", why);
  }
  if (plan.mode === "svm" && mode === "bind") {
    const why =
      "--mode svm: the kernel calls no pm_ function, so its variables are bound: leave --mode out, or say --mode bind";
    throw new KernelError("EINVAL", "run", why);
  }
  const [named] = plan.params.filter(({ parts }) => parts.some((part) => typeof part !== "number"));
  if (mode === "bind" && named !== undefined) {
    const why =
      "addresses (@) and lengths (#) of mappings are for kernels that follow addresses with pm_ functions: give a number";
    throw new KernelError("EINVAL", `set ${named.name}`, why);
  }
}

async function dispatchBound(pm: PageMirror, kernel: WebGpuKernel, plan: RunPlan, progress: Progress): Promise<Ran> {
  const binds = planBindings(kernel.reflection, plan.maps);
  const most = pm.adapter.limits.maxComputeWorkgroupsPerDimension ?? 65_535;
  const workgroups = plan.workgroups ?? defaultWorkgroups(kernel.reflection, binds, most);
  checkWorkgroups(workgroups, most);
  const params = resolveParams(plan.params, { addressOf: () => 0, lengthOf: () => 0 });
  const reached: Reached[] = [];
  for (const { map, length } of binds) {
    reached.push({ map, length, mapping: await mapSource(pm, map) });
  }
  const bind = Object.fromEntries(reached.map(({ map, mapping, length }) => [map.name, mapping.range(0, length)]));
  using _watch = watchUpload(pm, reached, progress);
  const stats = await kernel.dispatch({ bind, params, workgroups });
  return { mode: "bind", reached, stats };
}

async function dispatchSvm(pm: PageMirror, kernel: WebGpuKernel, plan: RunPlan, progress: Progress): Promise<Ran> {
  const { workgroups } = plan;
  const bound = kernel.reflection.bindings.find(({ name, kind }) => !(name === "params" && kind === "uniform"));
  if (bound !== undefined) {
    const why = `the kernel follows addresses, so the command cannot bind its variable ${bound.name}: take it out, and pass the mapping's address with --set MEMBER=@${bound.name}`;
    throw new KernelError("ENOTSUP", "run", why);
  }
  if (workgroups === undefined) {
    const why = "a kernel that follows addresses does not tell how much work there is: give --workgroups X[,Y[,Z]]";
    throw new KernelError("EINVAL", "run", why);
  }
  const reached: Reached[] = [];
  for (const map of plan.maps) {
    reached.push({ map, length: visibleLength(map.length), mapping: await mapSource(pm, map) });
  }
  const named = (name: string) => reached.find(({ map }) => map.name === name);
  const params = resolveParams(plan.params, {
    addressOf: (name) => named(name)?.mapping.svmAddress ?? 0,
    lengthOf: (name) => named(name)?.map.length ?? 0,
  });
  using _watch = watchRounds(pm, progress);
  const stats = await kernel.dispatch({ mm: pm.mm, params, workgroups });
  return { mode: "svm", reached, stats };
}

/** Shows how much of the files is on the device, and then that the kernel runs. */
function watchUpload(pm: PageMirror, reached: readonly Reached[], progress: Progress): Disposable {
  const total = reached.reduce((sum, { map, length }) => sum + (map.file === undefined ? 0 : length), 0);
  let sent = 0;
  const look = () => {
    const now = pm.device.stats().bytesToDevice;
    progress.advance(now - sent);
    sent = now;
    if (sent >= total) {
      clearInterval(timer);
      progress.stage("running");
    }
  };
  const timer = setInterval(look, 100);
  if (total > 0) {
    progress.stage("sending to the device", total);
  }
  look();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** Shows what the rounds have sent to the device: how much there will be, nobody knows. */
function watchRounds(pm: PageMirror, progress: Progress): Disposable {
  let sent = 0;
  const timer = setInterval(() => {
    const now = pm.device.stats().bytesToDevice;
    if (now !== sent) {
      sent = now;
      progress.reword(`running, ${formatBytes(sent)} sent to the device`);
    }
  }, 100);
  progress.stage("running");
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
