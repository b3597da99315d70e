/** Runs the kernel of a plan over its mappings, bound to variables or followed by address. */
import { KernelError } from "../base/index.ts";
import type { DispatchStats, WebGpuDeviceStats } from "../drivers/webgpu/index.ts";
import type { SharedKernel, SharedMapping, SharedMirror } from "../node.ts";
import { resolveParams } from "./param-spec.ts";
import type { Progress } from "./progress.ts";
import { checkWorkgroups, defaultWorkgroups, planBindings, visibleLength } from "./run-bind.ts";
import { mapSource } from "./run-mapping.ts";
import type { MapPlan, RunPlan } from "./run-plan.ts";
import { formatBytes } from "./size.ts";

/** A mapping and as much of it, from its start, as the kernel could reach. */
export interface Reached {
  readonly map: MapPlan;
  readonly mapping: SharedMapping;
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
export async function dispatchPlan(pm: SharedMirror, plan: RunPlan, progress: Progress): Promise<Ran> {
  const kernel = await pm.device.kernel(plan.wgsl, {
    name: `kernel ${plan.kernelPath}`,
    ...(plan.entry === undefined ? {} : { entryPoint: plan.entry }),
  });
  checkMode(kernel, plan);
  return kernel.mode === "bind" ? dispatchBound(pm, kernel, plan, progress) : dispatchSvm(pm, kernel, plan, progress);
}

function checkMode({ mode }: SharedKernel, plan: RunPlan): void {
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

async function dispatchBound(pm: SharedMirror, kernel: SharedKernel, plan: RunPlan, progress: Progress): Promise<Ran> {
  const binds = planBindings(kernel.reflection, plan.maps);
  const most = pm.adapter?.limits.maxComputeWorkgroupsPerDimension ?? 65_535;
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

async function dispatchSvm(pm: SharedMirror, kernel: SharedKernel, plan: RunPlan, progress: Progress): Promise<Ran> {
  const { workgroups } = plan;
  // Mappings of other names are followed by address.
  const ofVariables = plan.maps.filter((map) => kernel.reflection.bindings.some(({ name }) => name === map.name));
  const binds = planBindings(kernel.reflection, ofVariables);
  if (workgroups === undefined) {
    const why = "a kernel that follows addresses does not tell how much work there is: give --workgroups X[,Y[,Z]]";
    throw new KernelError("EINVAL", "run", why);
  }
  const reached: Reached[] = [];
  for (const map of plan.maps) {
    const length = binds.find((planned) => planned.map === map)?.length ?? visibleLength(map.length);
    reached.push({ map, length, mapping: await mapSource(pm, map) });
  }
  const bind = Object.fromEntries(
    reached
      .filter(({ map }) => ofVariables.includes(map))
      .map(({ map, mapping, length }) => [map.name, mapping.range(0, length)]),
  );
  const named = (name: string) => reached.find(({ map }) => map.name === name);
  const params = resolveParams(plan.params, {
    addressOf: (name) => named(name)?.mapping.svmAddress ?? 0,
    lengthOf: (name) => named(name)?.map.length ?? 0,
  });
  using _watch = watchRounds(pm, progress);
  const stats = await kernel.dispatch({ mm: pm.mm, bind, params, workgroups });
  return { mode: "svm", reached, stats };
}

/** Shows how much of the files is on the device, and then that the kernel runs. */
function watchUpload(pm: SharedMirror, reached: readonly Reached[], progress: Progress): Disposable {
  const total = reached.reduce((sum, { map, length }) => sum + (map.file === undefined ? 0 : length), 0);
  let sent = 0;
  if (total > 0) {
    progress.stage("sending to the device", total);
  } else {
    progress.stage("running");
  }
  return watchStats(pm, ({ bytesToDevice: now }) => {
    progress.advance(now - sent);
    if (now >= total && sent < total) {
      progress.stage("running");
    }
    sent = now;
  });
}

/** Shows how many workgroups are done, after how many rounds, and what was sent to the device for them. */
function watchRounds(pm: SharedMirror, progress: Progress): Disposable {
  progress.stage("running");
  let done = -1;
  return watchStats(pm, ({ running: [dispatch] }) => {
    if (dispatch === undefined) {
      return;
    }
    const { rounds, workgroups, workgroupsDone, bytesToDevice } = dispatch;
    if (done < 0) {
      progress.stage("running", workgroups);
      done = 0;
    }
    progress.advance(workgroupsDone - done);
    done = workgroupsDone;
    progress.reword(`running, round ${rounds}, ${formatBytes(bytesToDevice)} sent to the device`);
  });
}

/** Tells, ten times a second until it is disposed of, what the device counts. */
function watchStats(pm: SharedMirror, tell: (stats: WebGpuDeviceStats) => void): Disposable {
  let over = false;
  const look = async () => {
    const stats = await pm.device.stats();
    if (!over) {
      tell(stats);
    }
  };
  // A device that is gone is reported by the dispatch.
  const timer = setInterval(() => void look().catch(() => undefined), 100);
  return {
    [Symbol.dispose]: () => {
      over = true;
      clearInterval(timer);
    },
  };
}
