/**
 * One dispatch: amdgpu's command submission for user memory, with migration for what the kernel writes.
 *
 *     extents for the ranges
 *     wait for leases that are in the way
 *     mmapLock, read
 *       written ranges: isolate the pages that are not the device's yet (migrate_vma)
 *       read ranges:    HmmRange.fault what the device has no valid copy of, take CPU write permission from it
 *       upload both
 *       update lock
 *         read ranges still valid, and nothing else was invalidated?  else start over
 *         mark pages, submit, attach the fence, finish the migrations
 */
import { isPromise, KernelError, throwIfAborted, type VirtAddr, vpnOf } from "../../base/index.ts";
import { HmmRange } from "../../hmm/index.ts";
import { type Migration, migrateVmaAbort, migrateVmaFinalize, migrateVmaSetup } from "../../migrate/index.ts";
import {
  type MemoryObject,
  PTE_WRITE,
  PteKind,
  pteIsKind,
  ptePfn,
  type Vma,
  VmFlags,
  writeProtectPages,
} from "../../mm/index.ts";
import type { MmapRead, WaitOptions } from "../../sync/index.ts";
import type { BindPlan, BoundRange } from "./bind-plan.ts";
import { type Extent, PageState } from "./extent.ts";
import { bindConflict } from "./extent-table.ts";
import type { OwnedBuffer } from "./gpu-buffer.ts";
import type { WebGpuKernel } from "./kernel.ts";
import type { DeviceMirror } from "./mirror.ts";
import { type PageRun, planUpload, type UploadPlan } from "./page-upload.ts";
import type { TransferBatch } from "./transfer-batch.ts";

/** What one dispatch took. */
export interface DispatchStats {
  readonly bytesToDevice: number;
  readonly pagesUploaded: number;
  /** Pages that became device-private. */
  readonly pagesMigrated: number;
  /** Tries that an invalidation or a lease undid. */
  readonly restarts: number;
}

/** A checked dispatch. */
export interface DispatchJob {
  readonly kernel: WebGpuKernel;
  readonly plan: BindPlan;
  readonly workgroups: readonly [number, number, number];
  readonly uniform: OwnedBuffer | undefined;
}

/** A variable's range with the extent that holds it. */
interface PlacedRange {
  readonly bound: BoundRange;
  readonly extent: Extent;
  /** Pages of the extent. */
  readonly from: number;
  readonly to: number;
}

/** Why a try has to be made again, and what to wait for first. */
interface Retry {
  readonly wait: (options: WaitOptions) => Promise<boolean>;
  readonly why: string;
}

/** Everything that one try has gathered so far. */
interface Attempt {
  readonly mirror: DeviceMirror;
  readonly lock: MmapRead;
  readonly uploads: PageRun[];
  readonly migrations: { readonly migration: Migration; readonly extent: Extent; readonly at: number }[];
  readonly ranges: { readonly range: HmmRange; readonly placed: PlacedRange; readonly at: number }[];
  /** Device-private pages that an invalidation hid from the device, and that nothing else happened to. */
  readonly inPlace: { readonly extent: Extent; readonly page: number }[];
}

/** Prepares, submits and waits. See WebGpuKernel.dispatch for the errors. */
export async function submitDispatch(
  job: DispatchJob,
  options: WaitOptions & { timeoutMs: number },
): Promise<DispatchStats> {
  const { kernel, plan } = job;
  const { device } = kernel;
  const before = device.counts.pagesUploaded;
  const bytesBefore = device.transfer.stats.bytesToDevice;
  const turn = await device.turn.lock({ signal: options.signal });
  let done: Submitted;
  let restarts = 0;
  try {
    device.assertOpen(kernel.name);
    const mirror = plan.mm === undefined ? undefined : await device.mirrorOf(plan.mm);
    const deadline = Date.now() + options.timeoutMs;
    for (;;) {
      throwIfAborted(options.signal, kernel.name);
      const placed = mirror === undefined ? [] : await place(job, mirror);
      const outcome =
        mirror === undefined ? await submitWithoutMemory(job) : await attempt(job, mirror, placed, options.signal);
      if (!("why" in outcome)) {
        done = outcome;
        break;
      }
      restarts++;
      const left = deadline - Date.now();
      if (left <= 0 || !(await outcome.wait({ signal: options.signal, timeoutMs: left }))) {
        throw new KernelError("EBUSY", kernel.name, `${outcome.why} (tried for ${options.timeoutMs} ms)`);
      }
    }
  } finally {
    turn.release();
  }
  const pagesUploaded = device.counts.pagesUploaded - before;
  const bytesToDevice = device.transfer.stats.bytesToDevice - bytesBefore;
  device.counts.dispatches++;
  device.counts.restarts += restarts;
  await device.gpu.lost.wait(done.finished, kernel.name, { signal: options.signal });
  return { bytesToDevice, pagesUploaded, pagesMigrated: done.pagesMigrated, restarts };
}

/** An extent for every range; ranges that cannot share a buffer get their own. */
async function place(job: DispatchJob, mirror: DeviceMirror): Promise<PlacedRange[]> {
  const { ranges } = job.plan;
  const keep = new Set<Extent>();
  for (let split = false; ; split = true) {
    for (const bound of ranges) {
      const extent = await mirror.extents.ensure(bound.pages, keep);
      keep.add(extent);
      job.kernel.device.touch(extent);
    }
    const placed = ranges.map((bound) => placeIn(mirror, bound));
    const clash = mixedUse(placed);
    if (clash === undefined) {
      return placed;
    }
    if (split) {
      throw bindConflict(clash[0].bound.binding.name, clash[1].bound.binding.name);
    }
    // One buffer cannot be read and written by one dispatch, even in different places: give each range its own.
    for (const extent of new Set(placed.map((p) => p.extent))) {
      keep.delete(extent);
      await mirror.extents.evict(extent);
    }
  }
}

function placeIn(mirror: DeviceMirror, bound: BoundRange): PlacedRange {
  const extent = mirror.extents.containing(bound.pages);
  if (extent === undefined) {
    throw new KernelError(
      "ENOMEM",
      "dispatch",
      "the ranges of one dispatch do not fit into deviceMemory together: raise it",
    );
  }
  return { bound, extent, from: extent.pageAt(bound.pages.start), to: extent.pageAt(bound.pages.end - 1) + 1 };
}

function mixedUse(placed: readonly PlacedRange[]): readonly [PlacedRange, PlacedRange] | undefined {
  for (const a of placed) {
    const b = placed.find((other) => other.extent === a.extent && a.bound.write && !other.bound.write);
    if (b !== undefined) {
      return [a, b];
    }
  }
  return undefined;
}

/** What a submission left behind. */
interface Submitted {
  readonly finished: Promise<void>;
  readonly pagesMigrated: number;
}

async function attempt(
  job: DispatchJob,
  mirror: DeviceMirror,
  placed: readonly PlacedRange[],
  signal: AbortSignal | undefined,
): Promise<Submitted | Retry> {
  const { kernel } = job;
  const { mm } = mirror;
  using lock = mm.mmapLock.tryRead() ?? (await mm.mmapLock.read({ signal }));
  mm.assertAlive(kernel.name);
  using batch = kernel.device.transfer.begin({ op: kernel.name, signal });
  const tried: Attempt = { mirror, lock, uploads: [], migrations: [], ranges: [], inPlace: [] };
  let finished = false;
  try {
    for (const range of placed) {
      const retry = await (range.bound.write ? gatherWrites(tried, range) : gatherReads(tried, range));
      if (retry !== undefined) {
        return retry;
      }
    }
    await uploadAll(kernel, tried, batch);
    using _update = mirror.update.tryLock() ?? (await mirror.update.lock({ signal }));
    const outcome = commit(job, tried, placed, batch);
    finished = true;
    return outcome;
  } finally {
    if (!finished) {
      for (const { migration } of tried.migrations) {
        migrateVmaAbort(migration);
      }
    }
    mirror.isolating = undefined;
    for (const { range } of tried.ranges) {
      // Not the last user: the caller of dispatch holds the address space.
      const ended = range.unregister();
      if (isPromise(ended)) {
        ended.catch(() => undefined);
      }
    }
  }
}

/** The pages of a written range that are not device-private and valid: isolated, to become so. */
async function gatherWrites(tried: Attempt, placed: PlacedRange): Promise<Retry | undefined> {
  const { mirror, lock } = tried;
  const { extent, to } = placed;
  const wanted = PageState.Valid | PageState.Owned;
  for (let at = extent.firstWithout(placed.from, to, wanted); at < to; at = extent.firstWithout(at, to, wanted)) {
    const vma = vmaAt(mirror, extent.addrOf(at), placed, VmFlags.Write);
    const vmaEnd = Math.min(to, extent.pageAt(vma.end - 1) + 1);
    if (isInPlace(mirror, extent, at, PTE_WRITE)) {
      tried.inPlace.push({ extent, page: at });
      at++;
      continue;
    }
    let stop = at + 1;
    while (stop < vmaEnd && (extent.state[stop] & wanted) !== wanted && !isInPlace(mirror, extent, stop, PTE_WRITE)) {
      stop++;
    }
    const start = extent.addrOf(at);
    const end = extent.addrOf(stop);
    mirror.isolating = { start, end };
    const migration = await migrateVmaSetup(lock, vma, start, end, mirror.pagemap);
    if (migration === "pinned") {
      return leaseInTheWay(vma, start, end, "r", placed);
    }
    tried.migrations.push({ migration, extent, at });
    for (let p = extent.firstWithout(at, stop, PageState.Valid); p < stop; ) {
      const copied = Math.min(stop, extent.firstWith(p, stop, PageState.Valid));
      tried.uploads.push({
        extent,
        at: p,
        count: copied - p,
        object: migration.object,
        page: migration.page + (p - at),
        transit: "isolated",
      });
      p = extent.firstWithout(copied, stop, PageState.Valid);
    }
    at = stop;
  }
  return undefined;
}

/** The pages of a read range that the device has no valid copy of: faulted in, and write-protected against the CPU. */
async function gatherReads(tried: Attempt, placed: PlacedRange): Promise<Retry | undefined> {
  const { mirror, lock } = tried;
  const { extent, from, to } = placed;
  const first = extent.firstWithout(from, to, PageState.Valid);
  if (first === to) {
    return undefined;
  }
  let last = to;
  while (extent.state[last - 1] & PageState.Valid) {
    last--;
  }
  const range = new HmmRange({ start: extent.addrOf(first), end: extent.addrOf(last), pfnFlagsMask: 0xffff_ffff });
  range.register(mirror.hmm);
  tried.ranges.push({ range, placed, at: first });
  for (let p = first; p < last; p++) {
    if (!(extent.state[p] & PageState.Valid)) {
      if (isInPlace(mirror, extent, p, 0)) {
        tried.inPlace.push({ extent, page: p });
      } else {
        range.pfns[p - first] = range.flags.valid;
      }
    }
  }
  const wanted = range.pfns.slice();
  const faulted = range.faultLocked(lock);
  const outcome = isPromise(faulted) ? await faulted : faulted;
  if (typeof outcome !== "number") {
    return {
      wait: (options) => (range.isRegistered ? range.waitUntilValid(options) : waitForMirror(mirror, range, options)),
      why: "its memory is being changed all the time",
    };
  }
  for (let p = first; p < last; ) {
    if (wanted[p - first] === 0) {
      p++;
      continue;
    }
    const vma = vmaAt(mirror, extent.addrOf(p), placed, VmFlags.Read);
    const vmaEnd = Math.min(last, extent.pageAt(vma.end - 1) + 1);
    let stop = p + 1;
    while (stop < vmaEnd && wanted[stop - first] !== 0) {
      stop++;
    }
    const page = vma.objectPage(extent.addrOf(p));
    if (!writeProtectPages(vma.object, page, page + (stop - p))) {
      return leaseInTheWay(vma, extent.addrOf(p), extent.addrOf(stop), "rw", placed);
    }
    tried.uploads.push({ extent, at: p, count: stop - p, object: vma.object, page, transit: "wait" });
    p = stop;
  }
  return undefined;
}

/** A range that was given back cannot wait any more: its successor does. */
async function waitForMirror(mirror: DeviceMirror, former: HmmRange, options: WaitOptions): Promise<boolean> {
  const range = new HmmRange({ start: former.start, end: former.end });
  range.register(mirror.hmm);
  try {
    return await range.waitUntilValid(options);
  } finally {
    await range.unregister();
  }
}

/** A device-private page of this extent whose entry grants `bits`: only hidden by an invalidation, not moved. */
function isInPlace(mirror: DeviceMirror, extent: Extent, page: number, bits: number): boolean {
  if (!(extent.state[page] & PageState.Owned)) {
    return false;
  }
  const pte = mirror.mm.pageTable.get(vpnOf(extent.addrOf(page)));
  return (
    pteIsKind(pte, PteKind.DevicePrivate) &&
    (pte & bits) === bits &&
    mirror.pagemap.frameOf(ptePfn(pte)) === extent.frame + page
  );
}

function vmaAt(mirror: DeviceMirror, addr: VirtAddr, { bound }: PlacedRange, need: number): Vma {
  const { name } = bound.binding;
  const vma = mirror.mm.vmas.find(addr);
  if (vma === undefined) {
    throw new KernelError(
      "EFAULT",
      "dispatch",
      `${name} is bound to memory of ${bound.mapping.name} that was unmapped: mmap it again`,
    );
  }
  if ((vma.flags & VmFlags.Read) === 0) {
    throw new KernelError("EFAULT", "dispatch", `${name} is bound to ${vma.name}, which is not readable: mprotect it`);
  }
  if (need === VmFlags.Write && (vma.flags & VmFlags.Write) === 0) {
    throw new KernelError(
      "EACCES",
      "dispatch",
      `the kernel writes ${name} and ${vma.name} is mapped read-only: map it privately or writable`,
    );
  }
  return vma;
}

/** A lease holds pages: nothing to do but wait for its end. */
function leaseInTheWay(vma: Vma, start: VirtAddr, end: VirtAddr, mode: "r" | "rw", { bound }: PlacedRange): Retry {
  const object: MemoryObject = vma.object;
  const page = vma.objectPage(start);
  const stop = vma.objectPage(end - 1) + 1;
  return {
    wait: (options) => object.wq.wait(() => !object.isPinned(page, stop, mode), options),
    why: `a lease on ${vma.name}, which ${bound.binding.name} is bound to, is still held: dispose it before the dispatch`,
  };
}

async function uploadAll(kernel: WebGpuKernel, tried: Attempt, batch: TransferBatch): Promise<void> {
  const plan: UploadPlan = { uploads: [], filled: [], clears: [], pages: 0 };
  for (const run of tried.uploads) {
    planUpload(plan, run);
  }
  for (const { buffer, offset, bytes } of plan.clears) {
    batch.clear(buffer, offset, bytes);
  }
  const uploaded = batch.upload(plan.uploads);
  if (isPromise(uploaded)) {
    await uploaded;
  }
  for (const { extent, page, end } of plan.filled) {
    extent.update(page, end, PageState.Touched, 0);
  }
  kernel.device.counts.pagesUploaded += plan.pages;
}

/**
 * Under the update lock, in one run to completion: nothing can come between the checks and the fence.
 * Uploads are submitted even when the dispatch is not: what they brought stays valid.
 */
function commit(
  job: DispatchJob,
  tried: Attempt,
  placed: readonly PlacedRange[],
  batch: TransferBatch,
): Submitted | Retry {
  const { kernel } = job;
  const { device } = kernel;
  const { mirror } = tried;
  const stale = tried.ranges.filter(({ range }) => !range.valid);
  for (const { extent, at, count, transit } of tried.uploads) {
    if (
      transit === "wait" &&
      !stale.some((s) => s.placed.extent === extent && at >= s.at && at < s.at + s.range.pages)
    ) {
      extent.update(at, at + count, PageState.Valid, 0);
    }
  }
  for (const { extent, page } of tried.inPlace) {
    if (isInPlace(mirror, extent, page, 0)) {
      extent.state[page] |= PageState.Valid;
    }
  }
  const complete =
    stale.length === 0 &&
    placed.every(({ bound, extent, from, to }) => {
      const wanted = bound.write ? PageState.Valid | PageState.Owned : PageState.Valid;
      for (let p = extent.firstWithout(from, to, wanted); p < to; p = extent.firstWithout(p + 1, to, wanted)) {
        if (
          !bound.write ||
          !tried.migrations.some(
            (m) => m.extent === extent && p >= m.at && p < m.at + (m.migration.end - m.migration.page),
          )
        ) {
          return false;
        }
      }
      return true;
    });
  if (complete) {
    encodeDispatch(job, placed, batch.encoder);
  }
  const finished = batch.submit();
  const serial = device.fences.record(finished);
  let pagesMigrated = 0;
  for (const { migration, extent, at } of tried.migrations) {
    const count = migration.end - migration.page;
    migrateVmaFinalize(migration, (i) => extent.frame + at + i);
    extent.own(at, at + count, migration.object, migration.page);
    pagesMigrated += count;
  }
  for (const { extent } of placed) {
    extent.lastSerial = serial;
  }
  if (complete) {
    return { finished, pagesMigrated };
  }
  return { wait: () => Promise.resolve(true), why: "its memory is being changed all the time" };
}

function encodeDispatch(job: DispatchJob, placed: readonly PlacedRange[], encoder: GPUCommandEncoder): void {
  const { kernel, uniform, workgroups } = job;
  const { compiled, device } = kernel;
  const groups = new Map<number, GPUBindGroupEntry[]>();
  for (const binding of compiled.reflection.bindings) {
    const entries = groups.get(binding.group) ?? [];
    groups.set(binding.group, entries);
    const range = placed.find((p) => p.bound.binding === binding);
    if (range !== undefined) {
      const { bound, extent } = range;
      entries.push({
        binding: binding.binding,
        resource: { buffer: extent.buffer.buffer, offset: bound.start - extent.start, size: bound.bytes },
      });
    } else if (uniform !== undefined) {
      entries.push({ binding: binding.binding, resource: { buffer: uniform.buffer } });
    }
  }
  const pass = encoder.beginComputePass({ label: kernel.name });
  pass.setPipeline(compiled.pipeline);
  for (const [group, entries] of groups) {
    const layout = compiled.groupLayouts[group];
    pass.setBindGroup(group, device.gpu.device.createBindGroup({ layout, entries }));
  }
  pass.dispatchWorkgroups(...workgroups);
  pass.end();
}

/** A kernel that binds no memory at all. */
function submitWithoutMemory(job: DispatchJob): Submitted {
  using batch = job.kernel.device.transfer.begin({ op: job.kernel.name });
  encodeDispatch(job, [], batch.encoder);
  const finished = batch.submit();
  job.kernel.device.fences.record(finished);
  return { finished, pagesMigrated: 0 };
}
