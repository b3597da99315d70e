/** Sending events about memory. Called only while somebody listens. */
import {
  isPromise,
  type MaybePromise,
  PAGE_SIZE,
  trace,
  traceClearStart,
  traceEnd,
  traceFault,
  traceIdOf,
  traceStart,
  vpnOf,
} from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { MemoryObject } from "./memory-object.ts";
import type { MmuNotifierRange } from "./ports.ts";
import { forEachPart } from "./range-parts.ts";
import { type Vma, VmFlags } from "./vma.ts";

/** Why pages came to the host or went to a device. */
export type MigrateCause = "cpu fault" | "evict" | "writeback" | "copy" | "remap" | "kernel write";

/** Sends a mapping. */
export function traceMap({ mm, start, end, name, flags }: Pick<Vma, "mm" | "start" | "end" | "name" | "flags">): void {
  trace("mm.map", { space: traceIdOf(mm), start, end, name, write: (flags & VmFlags.Write) !== 0 });
}

/** Sends what is mapped already, for a listener that comes late. */
export function traceSpace(mm: AddressSpace): void {
  for (const vma of mm.vmas.values()) {
    traceMap(vma);
  }
}

/** Sends the start of an invalidation, which began at `since`, when everybody has let go. */
export function tracedStart(range: MmuNotifierRange, since: number): MaybePromise<0 | "EAGAIN"> | undefined {
  const started = range.mm.notifiers?.invalidateRangeStart(range);
  if (started === undefined) {
    return undefined;
  }
  if (isPromise(started)) {
    sendStartLater(started, range, since);
  } else if (range.event === "clear" && range.blockable) {
    const space = traceIdOf(range.mm);
    if (range.parts === undefined) {
      traceClearStart(space, vpnOf(range.start), vpnOf(range.end), since);
    } else {
      sendClearStarts(range, space, since);
    }
  } else {
    sendStart(range, since);
  }
  return started;
}

// What makes closures is by itself: a function that may make one pays for it also when it does not.

function sendClearStarts(range: MmuNotifierRange, space: number, since: number): void {
  forEachPart(range, (start, end) => traceClearStart(space, vpnOf(start), vpnOf(end), since));
}

function sendEnds(range: MmuNotifierRange, space: number, now: number): void {
  forEachPart(range, (start, end) => traceEnd(space, vpnOf(start), vpnOf(end), range.event, now));
}

function sendStartLater(started: Promise<unknown>, range: MmuNotifierRange, since: number): void {
  void started.then(
    () => sendStart(range, since),
    () => undefined,
  );
}

function sendStart({ mm, start, end, event, blockable }: MmuNotifierRange, since: number): void {
  traceStart(traceIdOf(mm), vpnOf(start), vpnOf(end), event, blockable, since);
}

/** Sends the end of an invalidation, which was at `now`. */
export function tracedEnd(range: MmuNotifierRange, now: number): void {
  const space = traceIdOf(range.mm);
  if (range.parts === undefined) {
    traceEnd(space, vpnOf(range.start), vpnOf(range.end), range.event, now);
  } else {
    sendEnds(range, space, now);
  }
}

/** Sends that pages of an object have moved, for each place where they are mapped. */
export function traceMigrate(
  object: MemoryObject,
  page: number,
  end: number,
  to: "host" | "device",
  cause: MigrateCause,
  since = 0,
): void {
  forEachPlace(object, page, end, (mm, start, stop) => {
    const pages = (stop - start) / PAGE_SIZE;
    trace("mm.migrate", { space: traceIdOf(mm), start, end: stop, pages, to, cause }, since);
  });
}

/** Sends that pages of an object were shown to a plain access that met one of them, for each place where they are mapped. */
export function traceShown(object: MemoryObject, page: number, end: number, write: boolean, since: number): void {
  forEachPlace(object, page, end, (mm, start, stop) => {
    traceFault(traceIdOf(mm), vpnOf(start), vpnOf(stop), write, false, since);
  });
}

/** Sends that pages of an object were lost, for each place where they are mapped. */
export function tracePoison(object: MemoryObject, page: number, end: number): void {
  forEachPlace(object, page, end, (mm, start, stop) => {
    trace("mm.poison", { space: traceIdOf(mm), start, end: stop });
  });
}

function forEachPlace(
  object: MemoryObject,
  page: number,
  end: number,
  visit: (mm: AddressSpace, start: number, end: number) => void,
): void {
  object.vmas.forEachOverlap(page, end, (vma) => {
    const first = Math.max(page, vma.pgoff);
    const last = Math.min(end, vma.pgoff + vma.pages);
    visit(vma.mm, vma.addrOfPage(first), vma.addrOfPage(last));
  });
}
