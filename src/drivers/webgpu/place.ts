/** Which extent each range of a dispatch is in, and which mappings are behind it. */
import { formatRange, KernelError, type VirtRange } from "../../base/index.ts";
import { type MemoryObject, type Vma, VmFlags } from "../../mm/index.ts";
import type { BoundRange } from "./bind-plan.ts";
import type { WebGpuDevice } from "./device.ts";
import type { Extent } from "./extent.ts";
import { bindConflict } from "./extent-table.ts";
import type { DeviceMirror } from "./mirror.ts";

/** A variable's range with the extent that holds it. */
export interface PlacedRange {
  readonly bound: BoundRange;
  readonly extent: Extent;
  /** Pages of the extent. */
  readonly from: number;
  readonly to: number;
}

/** The part of a placed range that lies in one VMA. */
export interface Segment {
  readonly placed: PlacedRange;
  readonly vma: Vma;
  /** Pages of the extent. */
  readonly from: number;
  readonly to: number;
  /** Page of the VMA's object at `from`. */
  readonly page: number;
}

/** One extent over ranges that grew together may cost those that were placed before theirs: so often is looked again. */
const MAX_PASSES = 4;

/**
 * An extent for every range; ranges that cannot share a buffer get their own.
 *
 * Locks: the device's turn, held by the caller.
 * @throws KernelError ENOMEM over `deviceMemory` or the GPU's memory; EINVAL over the adapter's buffer size; ENODEV
 */
export async function placeRanges(
  device: WebGpuDevice,
  mirror: DeviceMirror,
  ranges: readonly BoundRange[],
): Promise<PlacedRange[]> {
  const hulls = joinOverlaps(ranges);
  for (let pass = 1; ; pass++) {
    const keep = new Set<Extent>();
    for (const { range, names } of hulls) {
      const extent = await mirror.extents.ensure(range, keep, names);
      keep.add(extent);
      device.touch(extent);
    }
    const placed = ranges.flatMap((bound) => placeIn(mirror, bound) ?? []);
    const mixed = placed.length < ranges.length ? undefined : mixedUse(placed);
    if (placed.length === ranges.length && mixed === undefined) {
      return placed;
    }
    if (pass === MAX_PASSES) {
      throw new KernelError(
        "ENOMEM",
        "dispatch",
        `the ranges of one dispatch do not fit into ${device.budget.limit} bytes of device memory together: raise deviceMemory`,
      );
    }
    // One buffer cannot be read and written by one dispatch, even in different places: give each range its own.
    for (const extent of mixed ?? []) {
      await mirror.extents.evict(extent);
    }
  }
}

/** The ranges in the extents that there are; undefined when some would have to be made or moved. */
export function placedAlready(
  device: WebGpuDevice,
  mirror: DeviceMirror,
  ranges: readonly BoundRange[],
): PlacedRange[] | undefined {
  const placed = ranges.flatMap((bound) => placeIn(mirror, bound) ?? []);
  if (placed.length < ranges.length || mixedUse(placed) !== undefined) {
    return undefined;
  }
  for (const { extent } of placed) {
    extent.unmapped = false;
    device.touch(extent);
  }
  return placed;
}

/** A stretch that needs one buffer, and the variables that are bound to parts of it. */
interface Hull {
  readonly range: VirtRange;
  readonly names: string;
}

/** Ranges that share pages need one buffer: what is placed are the hulls of those. */
function joinOverlaps(ranges: readonly BoundRange[]): Hull[] {
  const hulls: Hull[] = [];
  for (const { pages, binding } of [...ranges].sort((a, b) => a.pages.start - b.pages.start)) {
    const last = hulls.at(-1);
    if (last !== undefined && pages.start < last.range.end) {
      const { start, end } = last.range;
      const range = { start, end: pages.end > end ? pages.end : end };
      hulls[hulls.length - 1] = { range, names: `${last.names}, ${binding.name}` };
    } else {
      hulls.push({ range: pages, names: binding.name });
    }
  }
  return hulls;
}

function placeIn(mirror: DeviceMirror, bound: BoundRange): PlacedRange | undefined {
  const extent = mirror.extents.containing(bound.pages);
  return (
    extent && {
      bound,
      extent,
      from: extent.pageAt(bound.pages.start),
      to: extent.pageAt(bound.pages.end - 1) + 1,
    }
  );
}

/** Extents that the dispatch would both read and write. */
function mixedUse(placed: readonly PlacedRange[]): Set<Extent> | undefined {
  const written = new Set(placed.filter((p) => p.bound.write).map((p) => p.extent));
  const mixed = new Set(placed.filter((p) => !p.bound.write && written.has(p.extent)).map((p) => p.extent));
  return mixed.size === 0 ? undefined : mixed;
}

/**
 * The VMAs behind the ranges, checked for what the kernel does there.
 *
 * Locks: mmapLock, read.
 * @throws KernelError EFAULT unmapped, unreadable, without pages of memory, or past the object's end; EACCES a written
 *   variable over a read-only mapping; EINVAL one page of an object behind two variables, one of which is written
 */
export function segmentsOf(mirror: DeviceMirror, placed: readonly PlacedRange[]): Segment[] {
  const segments: Segment[] = [];
  for (const range of placed) {
    for (let at = range.from; at < range.to; ) {
      const segment = segmentAt(mirror, range, at);
      segments.push(segment);
      at = segment.to;
    }
  }
  checkSharedPages(segments);
  return segments;
}

const NO_MEMORY = VmFlags.Io | VmFlags.PfnMap | VmFlags.MixedMap;

function segmentAt(mirror: DeviceMirror, placed: PlacedRange, from: number): Segment {
  const { bound, extent } = placed;
  const { name } = bound.binding;
  const fail = (code: "EFAULT" | "EACCES", why: string): never => {
    throw new KernelError(code, "dispatch", why);
  };
  const start = extent.addrOf(from);
  const vma =
    mirror.mm.vmas.find(start) ??
    fail("EFAULT", `${name} is bound to memory of ${bound.mapping.name} that was unmapped: mmap it again`);
  if (vma.flags & NO_MEMORY) {
    fail("EFAULT", `${name} is bound to ${vma.name}, which has no pages of memory that a device could use`);
  }
  if ((vma.flags & VmFlags.Read) === 0) {
    fail("EFAULT", `${name} is bound to ${vma.name}, which is not readable: mprotect it`);
  }
  if (bound.write && (vma.flags & VmFlags.Write) === 0) {
    fail("EACCES", `the kernel writes ${name} and ${vma.name} is mapped read-only: map it privately or writable`);
  }
  const to = Math.min(placed.to, extent.pageAt(vma.end - 1) + 1);
  const page = vma.objectPage(start);
  if (page + (to - from) > vma.object.pages) {
    fail(
      "EFAULT",
      `${name} is bound to ${formatRange({ start, end: extent.addrOf(to) })}, past the end of ${vma.name}: bind its first ${vma.object.pages} pages`,
    );
  }
  return { placed, vma, from, to, page };
}

/** The same page at two addresses is two pages to the GPU: writes through one would not be seen through the other. */
function checkSharedPages(segments: readonly Segment[]): void {
  if (segments.length < 2 || !segments.some((s) => s.placed.bound.write)) {
    return;
  }
  const byObject = new Map<MemoryObject, Segment[]>();
  for (const segment of segments) {
    const list = byObject.get(segment.vma.object);
    list === undefined ? byObject.set(segment.vma.object, [segment]) : list.push(segment);
  }
  for (const list of byObject.values()) {
    list.sort((a, b) => a.page - b.page);
    let furthest: Segment | undefined;
    let furthestWritten: Segment | undefined;
    for (const segment of list) {
      const { write } = segment.placed.bound;
      const other = write ? furthest : furthestWritten;
      if (other !== undefined && segment.page < endPage(other)) {
        throw bindConflict(describe(other), describe(segment));
      }
      furthest = further(furthest, segment);
      furthestWritten = write ? further(furthestWritten, segment) : furthestWritten;
    }
  }
}

function further(a: Segment | undefined, b: Segment): Segment {
  return a === undefined || endPage(b) > endPage(a) ? b : a;
}

/** One past the segment's last page of its object. */
export function endPage(segment: Segment): number {
  return segment.page + (segment.to - segment.from);
}

function describe({ placed, vma }: Segment): string {
  return `${placed.bound.binding.name} (${vma.name})`;
}
